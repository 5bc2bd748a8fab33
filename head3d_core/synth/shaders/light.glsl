// Sky light as nine spherical-harmonic radiance coefficients, and one key light with a shadow map.

uniform vec3 sky[9];          // radiance coefficients, order (0,0) (1,-1:y) (1,0:z) (1,1:x) xy yz zz xz xx-yy
uniform vec3 key_colour;
uniform vec3 key_u, key_v, key_direction;   // orthonormal; key_direction points towards the light
uniform sampler2D key_solid, key_hair;      // orthographic depth seen from the key light
uniform vec3 centre;          // of the light's box, dm
uniform float half_width;     // of the light's box, dm

// Sky radiance from direction d, at least 0.
vec3 sky_radiance(vec3 d) {
    vec3 c = sky[0] * .282095 + .488603 * (sky[1] * d.y + sky[2] * d.z + sky[3] * d.x)
        + 1.092548 * (sky[4] * d.x * d.y + sky[5] * d.y * d.z + sky[7] * d.x * d.z)
        + .315392 * sky[6] * (3. * d.z * d.z - 1.) + .546274 * sky[8] * (d.x * d.x - d.y * d.y);
    return max(c, vec3(0));
}
vec3 sky_mean() { return max(sky[0] * .2821, vec3(0)); }

// Light that passes the hair in front of a point: exponential in the depth behind the first strand.
float through_hair(float behind, float bias, float density) {
    return exp(-max(0., behind - bias) * 2. * half_width * density);
}

// Share of the key light that reaches p, in [0, 1]; `softness` is the blur radius in shadow-map units.
float key_visibility(vec3 p, float softness, float rotation) {
    vec3 q = p - centre;
    vec2 uv = vec2(dot(q, key_u), dot(q, key_v)) / half_width * .5 + .5;
    float z = .5 - .5 * dot(q, key_direction) / half_width;
    float total = 0.;
    for (int i = 0; i < 7; i++) {
        float angle = rotation + float(i) * 2.39996;
        vec2 at = uv + vec2(cos(angle), sin(angle)) * softness * sqrt((float(i) + .5) / 7.);
        float behind_solid = z - textureLod(key_solid, at, 0.).r;
        float behind_hair = z - textureLod(key_hair, at, 0.).r;
        total += (1. - smoothstep(.004, .010, behind_solid)) * through_hair(behind_hair, .003, 14.);
    }
    return total / 7.;
}
