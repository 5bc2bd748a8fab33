// Sky light at every mesh vertex, or at a thinned set of hair points:
//   E / pi = sum over directions of visibility x cosine x radiance x (solid angle / pi).
// Visibility is read from one depth tile per direction: binary behind solids, exponential behind hair.
#include "common.glsl"
#include "light.glsl"
layout(local_size_x = 64) in;
uniform vec3 axis_u[DIRECTIONS], axis_v[DIRECTIONS], axis_d[DIRECTIONS];
uniform ivec2 tiles;
uniform sampler2D sky_solid, sky_hair;
uniform int count;              // vertices or kept hair points
uniform int for_hair;           // 0 mesh, 1 hair
uniform int strand_points, strand_step, point_step, kept_points;
uniform float hair_density;     // 1/dm
uniform vec3 hair_centre;

void main() {
    int k = int(gl_GlobalInvocationID.x);
    if (k >= count) return;
    bool hairy = for_hair == 1;
    vec3 p, n;
    if (hairy) {
        int i = min((k % kept_points) * point_step, strand_points - 1);
        p = hair[(k / kept_points) * strand_step * strand_points + i].xyz;
        n = safe_normalize(p - hair_centre);
    } else {
        n = load_normal(uint(k));
        p = load_position(uint(k)) + n * .012;
    }
    vec3 q = (p - centre) / half_width;
    vec3 light = vec3(0);
    float open = 0.;
    for (int i = 0; i < DIRECTIONS; i++) {
        vec3 d = axis_d[i];
        float c = dot(n, d);
        float weight = hairy ? .55 + .45 * c : c;
        if (weight <= 0.) continue;
        vec2 at = clamp(vec2(dot(q, axis_u[i]), dot(q, axis_v[i])) * .5 + .5, .003, .997);
        vec2 uv = (vec2(i % tiles.x, i / tiles.x) + at) / vec2(tiles);
        float z = .5 - .5 * dot(q, d);
        float seen = 1. - smoothstep(.0035, .010, z - textureLod(sky_solid, uv, 0.).r);
        seen *= through_hair(z - textureLod(sky_hair, uv, 0.).r, .004, hair_density);
        light += weight * seen * sky_radiance(d);
        open += weight * seen;
    }
    light *= 4. / float(DIRECTIONS);
    open *= 4. / float(DIRECTIONS);
    if (!hairy) {
        vertex_light[k] = vec4(light, clamp(open, 0., 1.));
        return;
    }
    float z = .5 - .5 * dot(q, key_direction);
    vec2 uv = vec2(dot(q, key_u), dot(q, key_v)) * .5 + .5;
    float key = 0.;
    for (int i = 0; i < 9; i++) {
        vec2 at = uv + (vec2(i % 3, i / 3) - 1.) * .006;
        float solid = 1. - smoothstep(.004, .010, z - textureLod(key_solid, at, 0.).r);
        key += solid * through_hair(z - textureLod(key_hair, at, 0.).r, .003, 9.);
    }
    hair_light[k] = vec4(light, key / 9.);
}
