// Sorts samples by what they see into one work list per material, so that each shading program runs on its own.
// A pixel whose samples all lie on one smooth piece of skin or cloth gets one entry per row of samples.
#include "worklists.glsl"
layout(local_size_x = 8, local_size_y = 8) in;
layout(std430, binding = 3) buffer Extra { vec4 extra[]; };
layout(std430, binding = 6) buffer Indices { uint indices[]; };
layout(std430, binding = 11) buffer Samples { uvec4 samples[]; };
uniform usampler2D seen;
uniform sampler2D depth;
uniform int size;                   // pixels per side
uniform vec2 near_far;              // dm
uniform uint skin_triangles, eye_triangles;
const float SMOOTH_DEPTH = .06;     // dm between a pixel's nearest and farthest sample

uint material_of(uint id) {
    if ((id & HAIR_FLAG) != 0u) return HAIR;
    return id < skin_triangles ? SKIN : id < skin_triangles + eye_triangles ? EYE : SOLID;
}

// Room for `n` entries; also keeps the number of work groups for the indirect dispatch.
uint reserve(uint material, uint n) {
    uint first = atomicAdd(work[material].w, n);
    if (n > 0u) atomicMax(work[material].x, (first + n + 63u) / 64u);
    return first;
}

void main() {
    ivec2 pixel = ivec2(gl_GlobalInvocationID.xy);
    if (pixel.x >= size || pixel.y >= size) return;
    int count = factor * factor;
    uint found[4] = uint[4](0u, 0u, 0u, 0u);
    float nearest = 1., farthest = 0.;
    for (int k = 0; k < count; k++) {
        ivec2 at = pixel * factor + ivec2(k % factor, k / factor);
        float z = texelFetch(depth, at, 0).r;
        nearest = min(nearest, z), farthest = max(farthest, z);
        if (z < 1.) found[material_of(texelFetch(seen, at, 0).r)]++;
    }
    float n = near_far.x, f = near_far.y;
    float slope = (f - n) * f * n / pow(f - nearest * (f - n), 2.);     // dm per unit of z
    bool calm = found[SKIN] == uint(count) && (farthest - nearest) * slope < SMOOTH_DEPTH;
    if (calm) {     // not where lips or the collar begin: their edges want all samples
        uint t = 3u * texelFetch(seen, pixel * factor + factor / 2, 0).r;
        vec4 a = extra[indices[t]], b = extra[indices[t + 1u]], c = extra[indices[t + 2u]];
        vec4 spread = max(a, max(b, c)) - min(a, min(b, c));
        calm = max(spread.x, spread.w) < .1;
    }
    uint next[4];
    for (uint m = 0u; m < 4u; m++) next[m] = reserve(m, calm && m == SKIN ? uint(factor) : found[m]);
    for (int k = 0; k < count; k++) {
        ivec2 in_pixel = ivec2(k % factor, k / factor), at = pixel * factor + in_pixel;
        uint slot = uint(at.y * width + at.x);
        if (texelFetch(depth, at, 0).r >= 1.) samples[slot] = uvec4(0u);
        else if (!calm || in_pixel.x + in_pixel.y == factor - 1) {      // calm: the diagonal, one per row and column
            uint m = material_of(texelFetch(seen, at, 0).r);
            entries[m * uint(width * width) + next[m]++] = calm ? slot | ROW_FLAG : slot;
        }
    }
}
