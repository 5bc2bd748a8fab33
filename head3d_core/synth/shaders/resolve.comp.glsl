// Samples to pixels: a Gaussian reconstruction filter (sd 0.45 pixel), composited over the background.
// Depth and normal come from the samples of the pixel's own square, depth from its middle one.
#include "common.glsl"
#include "scene.glsl"
layout(local_size_x = 8, local_size_y = 8) in;
layout(std430, binding = 11) buffer Samples { uvec4 samples[]; };
layout(std430, binding = 12) buffer Frame { uint frame[]; };    // planes: rgb + alpha bytes, distance, normal
uniform int size;               // pixels per side
uniform int factor;             // samples per pixel side, odd
uniform vec3 background;        // sRGB, when there is no scene
uniform int scene;              // seed of the picture behind, in the SCENE variant

void main() {
    ivec2 at = ivec2(gl_GlobalInvocationID.xy);
    if (at.x >= size || at.y >= size) return;
    int width = size * factor, slot = at.y * size + at.x;
    ivec2 middle = at * factor + factor / 2;
    vec4 total = vec4(0);
    float weights = 0.;
    float falloff = .5 / pow(.45 * float(factor), 2.);
    for (int dy = -factor; dy <= factor; dy++)
        for (int dx = -factor; dx <= factor; dx++) {
            float w = exp(-float(dx * dx + dy * dy) * falloff);
            ivec2 q = clamp(middle + ivec2(dx, dy), ivec2(0), ivec2(width - 1));
            uvec4 s = samples[q.y * width + q.x];
            weights += w;
            if (s.w == 0u) continue;
            total += w * vec4(unpackHalf2x16(s.x), unpackHalf2x16(s.y));
        }
    total /= weights;
    vec3 behind = background;
#if SCENE
    behind = scene_colour((vec2(at) + .5) / float(size), scene);
#endif
    frame[slot] = packUnorm4x8(vec4(total.rgb + (1. - total.a) * behind, total.a));
    vec3 normal = vec3(0);
    for (int dy = 0; dy < factor; dy++)
        for (int dx = 0; dx < factor; dx++) {
            uvec4 s = samples[(at.y * factor + dy) * width + at.x * factor + dx];
            if (s.w != 0u) normal += unpackSnorm4x8(s.z).xyz;
        }
    uvec4 s = samples[middle.y * width + middle.x];
    frame[size * size + slot] = s.w;
    frame[2 * size * size + slot] = s.w == 0u ? 0u : packSnorm4x8(vec4(safe_normalize(normal), 0.));
}
