// Lashes, glasses, hats: a plain diffuse and glossy surface; rough ones get a weave.
vec3 shade_solid(Surface s) {
    vec3 n = dot(s.n, s.view) < 0. ? -s.n : s.n;
    float rough = s.extra.w;
    vec3 albedo = s.extra.rgb;
    if (rough > .7) {
        albedo *= .80 + .40 * noise(s.p * 55.);
        float h = fbm(s.p * 6.);
        vec3 slope = vec3(fbm(s.p * 6. + vec3(.1, 0, 0)) - h, fbm(s.p * 6. + vec3(0, .1, 0)) - h,
                          fbm(s.p * 6. + vec3(0, 0, .1)) - h) / .1;
        n = normalize(n - (slope - n * dot(slope, n)) * .22);
    }
    float key = key_visibility(s.p + n * .03, .010, s.rotation);
    vec3 c = albedo * (max(s.light.rgb, vec3(0)) + key_colour * max(dot(n, key_direction), 0.) * key);
    vec3 h = normalize(s.view + key_direction);
    float a = rough * rough, nh = max(dot(n, h), 0.), d = nh * nh * (a * a - 1.) + 1.;
    c += key_colour * key * min(a * a / (PI * d * d + 1e-4), 30.) * .01 * step(0., dot(n, key_direction));
    float fresnel = .04 + .6 * pow(1. - max(dot(n, s.view), 0.), 5.) * (1. - rough);
    return c + sky_radiance(reflect(-s.view, n)) * fresnel * (1. - rough) * (1. - rough) * s.light.a;
}
