// What a shading function needs to know about the visible point, and specular lobes shared by all.
uniform vec3 eye;               // camera centre, dm
uniform float exposure;

struct Surface {
    vec3 p;         // dm
    vec3 n;         // unit
    vec3 view;      // unit, towards the camera
    vec3 rest;      // skin: rest point; eyes: local direction
    vec4 extra;     // skin: mask; solids: colour and roughness
    vec4 light;     // sky irradiance / pi, sky visibility
    float rotation; // of the shadow taps, per sample
};

// Trowbridge-Reitz (GGX) lobe times its shadowing term, without Fresnel.
float ggx(vec3 n, vec3 v, vec3 l, float roughness) {
    vec3 h = normalize(v + l);
    float a = roughness * roughness;
    float nh = max(dot(n, h), 0.);
    float d = nh * nh * (a * a - 1.) + 1.;
    float nl = max(dot(n, l), 0.), nv = max(dot(n, v), 1e-3), k = a * .5;
    return a * a / (PI * d * d) * nl / (4. * (nl * (1. - k) + k) * (nv * (1. - k) + k) + 1e-4);
}

// A little contrast about middle grey, a filmic shoulder (ever flatter from 0.55 towards 1), then the sRGB curve.
vec3 tone(vec3 c) {
    c *= exposure;
    c = .18 * pow(max(c, vec3(0)) / .18, vec3(1.12)) * .92;
    c *= (1. + c * .13) / (1. + c * .36);
    c = min(c, .55 + .45 * (1. - exp(-max(c - .55, 0.) / .45)));
    return mix(12.92 * c, 1.055 * pow(c, vec3(1. / 2.4)) - .055, step(.0031308, c));
}
