// Shades the samples of one material (MATERIAL), after visibility is known (a visibility buffer: triangle or strand
// segment, and depth). Compute rather than fragment shading: on data-centre GPUs few cores serve the graphics stages.
// One program per material: neighbours take the same path, and software OpenGL never skips a branch.
#include "common.glsl"
#include "worklists.glsl"
#include "light.glsl"
#include "surface.glsl"
#include "skin.glsl"
#include "eye.glsl"
#include "solid.glsl"
#include "hair.glsl"
layout(local_size_x = 64) in;
layout(std430, binding = 11) buffer Samples { uvec4 samples[]; };   // half rgb + alpha, normal, distance
uniform usampler2D seen;
uniform sampler2D depth;
uniform vec3 ray_x, ray_y, ray_origin;      // image point (u, v) looks along u ray_x + v ray_y + ray_origin
uniform vec2 near_far;          // along the optical axis, dm
uniform float world_scale;      // world units per dm

uvec4 pack_sample(vec3 c, vec3 n, float distance) {
    return uvec4(packHalf2x16(c.rg), packHalf2x16(vec2(c.b, 1.)), packSnorm4x8(vec4(n, 1.)), floatBitsToUint(distance));
}

vec3 shade_mesh(uint triangle, vec3 direction, vec3 view, float rotation, out vec3 normal) {
    uint i = indices[3u * triangle], j = indices[3u * triangle + 1u], k = indices[3u * triangle + 2u];
    vec3 a = load_position(i), b = load_position(j) - a, c = load_position(k) - a;
    // Barycentrics of the ray's hit (Moeller and Trumbore).
    vec3 q = cross(direction, c);
    float det = dot(b, q);
    det = abs(det) < 1e-12 ? 1e-12 : det;
    vec3 o = eye - a, r = cross(o, b);
    vec2 w = clamp(vec2(dot(o, q), dot(direction, r)) / det, 0., 1.);
    vec3 bary = vec3(max(1. - w.x - w.y, 0.), w);
    bary /= bary.x + bary.y + bary.z;
    Surface s;
    s.p = a + b * bary.y + c * bary.z;
    s.n = safe_normalize(load_normal(i) * bary.x + load_normal(j) * bary.y + load_normal(k) * bary.z);
    s.view = view;
    s.rest = load_rest(i) * bary.x + load_rest(j) * bary.y + load_rest(k) * bary.z;
    s.extra = extra[i] * bary.x + extra[j] * bary.y + extra[k] * bary.z;
    s.light = vertex_light[i] * bary.x + vertex_light[j] * bary.y + vertex_light[k] * bary.z;
    s.rotation = rotation;
    normal = s.n;
#if MATERIAL == 0
    vec3 bn = safe_normalize(load_smooth(i) * bary.x + load_smooth(j) * bary.y + load_smooth(k) * bary.z);
    vec4 soft = soft_light[i] * bary.x + soft_light[j] * bary.y + soft_light[k] * bary.z;
    return shade_skin(s, bn, soft, int(parts[i] + .5));
#elif MATERIAL == 1
    return shade_eye(s);
#else
    normal = dot(normal, view) < 0. ? -normal : normal;
    return shade_solid(s);
#endif
}

void main() {
    uint place = gl_GlobalInvocationID.x;
    if (place >= work[MATERIAL].w) return;
    uint entry = entries[uint(MATERIAL * width * width) + place];
    int slot = int(entry & ~ROW_FLAG);
    ivec2 at = ivec2(slot % width, slot / width);
    float z = texelFetch(depth, at, 0).r;
    uint id = texelFetch(seen, at, 0).r;
    vec2 point = (vec2(at) + .5) / float(width);
    vec3 direction = ray_x * point.x + ray_y * point.y + ray_origin;    // length 1 along the axis
    float n = near_far.x, f = near_far.y;
    vec3 p = eye + direction * (2. * f * n / (f + n - (2. * z - 1.) * (f - n))), view = -normalize(direction), normal;
    float rotation = fract(sin(dot(vec2(at), vec2(12.9898, 78.233))) * 43758.5453) * 2. * PI;
#if MATERIAL == 3
    vec3 c = shade_hair(p, view, int(id & ~HAIR_FLAG) / 2, rotation, normal);
#else
    vec3 c = shade_mesh(id, -view, view, rotation, normal);
#endif
    uvec4 shaded = pack_sample(tone(c), normal, length(p - eye) * world_scale);
    if ((entry & ROW_FLAG) == 0u) samples[slot] = shaded;
    else for (int k = 0; k < factor; k++) samples[slot - at.x % factor + k] = shaded;
}
