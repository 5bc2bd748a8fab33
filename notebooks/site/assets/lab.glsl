#version 300 es
// The raw image of a head, one pixel a call: the two-pass renderer of head3d_core/model/volume.py (notebook 03).
precision highp float;
precision highp sampler2DArray;

const int GROUPS = 16, LAYERS = 8;  // 64 hidden units and 32 channels, by fours
const int COARSE = 24, FINE = 24;
const float OPAQUE = 1e-3;      // light that is left: what lies behind changes no byte

uniform sampler2DArray first;   // planes of A: 3 * LAYERS layers
uniform sampler2DArray second;  // planes of B
uniform vec3 shares;            // 0: A's plane, 1: B's, for F_xy, F_xz, F_yz
uniform mat3 rotation;          // camera to world
uniform vec3 position;          // of the camera, world units
uniform float focal, near, far, box, size;
uniform vec4 viewport;          // x, y, width, height in pixels
layout(std140) uniform Head {
  mat4 w0[GROUPS * LAYERS];     // the decoder in blocks of four hidden units by four channels
  vec4 b0[GROUPS];
  mat4 w1[GROUPS];              // to sigma, red, green, blue
  vec4 b1;
  vec4 scaleA[3 * LAYERS], offsetA[3 * LAYERS], scaleB[3 * LAYERS], offsetB[3 * LAYERS];
};
out vec4 colour;

float softplus(float x) { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }
vec4 softplus(vec4 x) { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }

// Zero outside the plane, as grid_sample pads: the bilinear weight that falls on texels that exist.
float inside(vec2 at) {
  vec2 texel = (at + 1.0) * 0.5 * size - 0.5;
  vec2 low = clamp(texel + 1.0, 0.0, 1.0), high = clamp(size - texel, 0.0, 1.0);
  return low.x * low.y * high.x * high.y;
}

// sigma and rgb of one point: three planes read, averaged, decoded.
vec4 look(vec3 p) {
  p *= 2.0 / box;
  vec4 feature[LAYERS];
  for (int c = 0; c < LAYERS; ++c) feature[c] = vec4(0.0);
  for (int k = 0; k < 3; ++k) {
    vec2 at = k == 0 ? p.xy : k == 1 ? p.xz : p.yz;
    float share = shares[k], weight = inside(at) / 3.0;
    if (weight == 0.0) continue;
    vec2 uv = (at + 1.0) * 0.5;
    for (int c = 0; c < LAYERS; ++c) {
      int layer = k * LAYERS + c;
      vec4 a = vec4(0.0), b = vec4(0.0);
      if (share < 1.0) a = offsetA[layer] + scaleA[layer] * texture(first, vec3(uv, layer));
      if (share > 0.0) b = offsetB[layer] + scaleB[layer] * texture(second, vec3(uv, layer));
      feature[c] += weight * mix(a, b, share);
    }
  }
  vec4 result = b1;
  for (int g = 0; g < GROUPS; ++g) {
    vec4 hidden = b0[g];
    for (int c = 0; c < LAYERS; ++c) hidden += w0[g * LAYERS + c] * feature[c];
    result += w1[g] * softplus(hidden);
  }
  result.yzw = 1.002 / (1.0 + exp(-result.yzw)) - 0.001;
  return result;
}

float coarseDepth(int i) { return near + (far - near) * (float(i) + 0.5) / float(COARSE - 1); }

void main() {
  vec2 pixel = (gl_FragCoord.xy - viewport.xy) / viewport.zw;
  vec3 direction = normalize(rotation * vec3((pixel.x - 0.5) / focal, (0.5 - pixel.y) / focal, 1.0));

  // First pass: where is matter?
  vec4 seen[COARSE];
  float weights[COARSE - 1], light = 1.0;
  for (int i = 0; i < COARSE - 1; ++i) weights[i] = 0.0;
  int count = COARSE;           // samples up to where the ray is opaque
  for (int i = 0; i < COARSE; ++i) {
    seen[i] = look(position + coarseDepth(i) * direction);
    if (i == 0) continue;
    float density = softplus((seen[i].x + seen[i - 1].x) * 0.5 - 1.0);
    float alpha = 1.0 - exp(-density * (coarseDepth(i) - coarseDepth(i - 1)));
    weights[i - 1] = alpha * light;
    light *= 1.0 - alpha + 1e-10;
    if (light < OPAQUE) {
      count = i + 1;
      break;
    }
  }
  // The cumulative distribution of the smoothed weights, bins shifted by one as in EG3D.
  float cdf[COARSE - 2], total = 0.0;
  cdf[0] = 0.0;
  for (int i = 1; i < COARSE - 2; ++i) {
    float here = weights[i], before = weights[i - 1], after = weights[min(i + 1, COARSE - 2)];
    float smoothed = (max(before, here) + max(here, after)) * 0.5 + 0.01;
    total += smoothed + 1e-5;
    cdf[i] = total;
  }
  // Second pass: both sets of samples in order of depth, marched by mid-points.
  int i = 0, j = 0, bin = 0;
  float u = 0.5 / float(FINE), depth = 0.0, fine = 0.0;
  bool ready = false;
  vec4 last = vec4(0.0);
  float lastDepth = 0.0;
  vec3 sum = vec3(0.0);
  float opacity = 0.0;
  light = 1.0;
  for (int step = 0; step < COARSE + FINE; ++step) {
    if (j < FINE && !ready) {
      u = (float(j) + 0.5) / float(FINE) * total;
      while (bin < COARSE - 4 && cdf[bin + 1] <= u) ++bin;
      float low = (coarseDepth(bin) + coarseDepth(bin + 1)) * 0.5;
      float high = (coarseDepth(bin + 1) + coarseDepth(bin + 2)) * 0.5;
      float width = (cdf[bin + 1] - cdf[bin]) / total;
      fine = low + (u - cdf[bin]) / total / (width < 1e-5 ? 1.0 : width) * (high - low);
      ready = true;
    }
    if (j >= FINE && i >= count) break;
    vec4 now;
    if (j < FINE && (i >= count || fine < coarseDepth(i))) {
      depth = fine;
      now = look(position + depth * direction);
      ++j;
      ready = false;
    } else {
      depth = coarseDepth(i);
      now = seen[i];
      ++i;
    }
    if (step > 0) {
      float density = softplus((now.x + last.x) * 0.5 - 1.0);
      float alpha = 1.0 - exp(-density * (depth - lastDepth));
      float weight = alpha * light;
      sum += weight * (now.yzw + last.yzw) * 0.5;
      opacity += weight;
      light *= 1.0 - alpha + 1e-10;
      if (light < OPAQUE) break;
    }
    last = now;
    lastDepth = depth;
  }
  colour = vec4(sum + (1.0 - opacity), 1.0);  // over white
}
