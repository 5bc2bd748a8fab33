// Shared by every program: buffer layout, spherical harmonics, noise, tone curve.
// Lengths are decimetres of the base mesh; colours are linear RGB.

const float PI = 3.14159265358979;

// One vertex array holds skin, then eyes, then solids (lashes, glasses, hat).
layout(std430, binding = 0) buffer Positions { float positions[]; };     // [V, 3]
layout(std430, binding = 1) buffer Normals { float normals[]; };         // [V, 3]
layout(std430, binding = 2) buffer Rest { float rest_points[]; };        // [V, 3] skin: rest point; eyes: local direction
layout(std430, binding = 3) buffer Extra { vec4 extra[]; };              // [V] skin: mask; solids: colour, roughness
layout(std430, binding = 4) buffer Smooth { float smooth_normals[]; };   // [skin, 3]
layout(std430, binding = 5) buffer Part { float parts[]; };              // [skin]
layout(std430, binding = 6) buffer Indices { uint indices[]; };          // [T, 3]
layout(std430, binding = 7) buffer VertexLight { vec4 vertex_light[]; }; // [V] irradiance / pi, sky visibility
layout(std430, binding = 8) buffer SoftLight { vec4 soft_light[]; };     // [skin] the same, diffused under the skin
layout(std430, binding = 9) buffer Hair { vec4 hair[]; };                // [S, P] point, width (negative: brow)
layout(std430, binding = 10) buffer HairLight { vec4 hair_light[]; };    // [S', P'] irradiance / pi, key visibility

vec3 load_position(uint i) { return vec3(positions[3u * i], positions[3u * i + 1u], positions[3u * i + 2u]); }
vec3 load_normal(uint i) { return vec3(normals[3u * i], normals[3u * i + 1u], normals[3u * i + 2u]); }
vec3 load_rest(uint i) { return vec3(rest_points[3u * i], rest_points[3u * i + 1u], rest_points[3u * i + 2u]); }
vec3 load_smooth(uint i) {
    return vec3(smooth_normals[3u * i], smooth_normals[3u * i + 1u], smooth_normals[3u * i + 2u]);
}

vec3 safe_normalize(vec3 v) { return v / max(length(v), 1e-6); }

// A number in [0, 1) from a lattice point.
float hash31(vec3 p) {
    p = fract(p * .1031);
    p += dot(p, p.zyx + 31.32);
    return fract((p.x + p.y) * p.z);
}
float hash11(float x) { return fract(sin(x * 78.233 + 1.3) * 43758.5453); }

// Value noise in [0, 1], unit lattice.
float noise(vec3 x) {
    vec3 i = floor(x), f = fract(x);
    f = f * f * (3. - 2. * f);
    return mix(mix(mix(hash31(i), hash31(i + vec3(1, 0, 0)), f.x),
                   mix(hash31(i + vec3(0, 1, 0)), hash31(i + vec3(1, 1, 0)), f.x), f.y),
               mix(mix(hash31(i + vec3(0, 0, 1)), hash31(i + vec3(1, 0, 1)), f.x),
                   mix(hash31(i + vec3(0, 1, 1)), hash31(i + vec3(1, 1, 1)), f.x), f.y), f.z);
}

// A turn off the axes: value noise is blocky along its lattice, and a face's features are level and upright.
const mat3 TURN = mat3(.36, .48, -.80, -.80, .60, 0., .48, .64, .60);

// Four octaves of value noise, each on its own lattice; about [0, 0.94].
float fbm(vec3 p) {
    float total = 0., weight = .5;
    for (int k = 0; k < 4; k++) {
        p = TURN * p;
        total += weight * noise(p);
        p = p * 2.03 + 7.;
        weight *= .5;
    }
    return total;
}

// Round spots, one in each unit cell that draws one: 1 in the middle, 0 outside; ragged edge. `share` of cells have one.
float spots(vec3 p, float share, float radius) {
    p = TURN * p;
    vec3 cell = floor(p);
    vec3 at = .28 + .44 * vec3(hash31(cell + 1.), hash31(cell + 17.), hash31(cell + 31.));
    float size = radius * (.5 + hash31(cell + 71.));
    float d = length(fract(p) - at) + .5 * size * (noise(p * 5.) - .5);
    return step(1. - share, hash31(cell + 53.)) * (1. - smoothstep(.55 * size, size, d));
}

// Anisotropic Gaussian bump of height 1 at c.
float bump(vec3 p, vec3 c, vec3 s) {
    vec3 q = (p - c) / s;
    return exp(-dot(q, q));
}
