// Skin, lips, painted scalp, stubble, teeth, tongue and cloth. Positions in rest space stick to features
// of every identity; `aR` folds the left side onto the right.
uniform vec3 skin_colour, lip_colour, scalp_colour, shirt, shirt_second;
uniform float scalp_paint, stubble, freckles, blush, oil, ageing, lipstick, eyeshadow, texture_offset;
uniform int neckline, shirt_pattern;

// Height of the collar's edge in rest space (dm); the four necklines: crew, V, high, straps.
float collar_height(vec3 r) {
    float a = abs(r.x);
    float back = 1. - smoothstep(-.4, .45, r.z);
    if (neckline == 0) return 5.72 + .40 * back;
    if (neckline == 1) return 5.78 + .36 * back - .75 * exp(-pow(a / .34, 1.3)) * smoothstep(-.1, .7, r.z);
    if (neckline == 2) return 6.02 + .16 * back;
    return 5.20 + .15 * back + .75 * exp(-pow((a - .92) / .17, 2.));
}

// Wrinkles and folds of age as a height field in rest space (dm, up to a scale); read through differences.
float wrinkle_height(vec3 r, vec3 s) {
    vec3 a = vec3(abs(r.x), r.yz);
    float wobble = noise(s * vec3(2.5, 1., 2.5)) * 3.;
    // Lines across the forehead, narrow valleys rather than waves.
    float line = abs(fract(r.y * 7.2 + wobble * .22) - .5) * 2.;
    float h = -.9 * smoothstep(.30, .0, line) * bump(r, vec3(0, 7.78, 1.5), vec3(.50, .17, .6)) * (.5 + noise(s * 3.));
    // Crow's feet fan out from the eye's corner.
    float fan = abs(fract(atan(a.y - 7.27, a.x - .36) * 3.2 + wobble * .15) - .5) * 2.;
    h -= .8 * smoothstep(.5, .0, fan) * bump(a, vec3(.62, 7.25, 1.1), vec3(.12, .13, .3));
    // Bags under the eyes, the folds from nostril to mouth corner, frown lines, lines on the upper lip and the neck.
    h -= .8 * exp(-pow((a.y - 7.055 + .25 * pow(a.x - .30, 2.)) / .02, 2.)) * bump(a, vec3(.30, 7.06, 1.4), vec3(.17, .12, .3));
    float fold = a.x - (.235 + .42 * (6.92 - a.y));
    h -= 1.6 * exp(-pow(fold / .026, 2.)) * smoothstep(6.50, 6.62, a.y) * smoothstep(6.96, 6.84, a.y) * step(.9, r.z);
    h -= .7 * exp(-pow((a.x - .07) / .016, 2.)) * bump(a, vec3(.07, 7.45, 1.6), vec3(.1, .09, .4));
    float ring = abs(fract(r.y * 4.1 + .5 * r.z + wobble * .1) - .5) * 2.;
    h -= .8 * smoothstep(.25, .0, ring) * bump(r, vec3(0, 5.9, .9), vec3(.6, .3, .6));
    return h + .35 * noise(TURN * s * 16.) + .25 * noise(s * vec3(20., 34., 20.));
}

vec3 wrinkle_slope(vec3 r, vec3 s) {
    const float e = .006;
    float h = wrinkle_height(r, s);
    return vec3(wrinkle_height(r + vec3(e, 0, 0), s + vec3(e, 0, 0)) - h,
                wrinkle_height(r + vec3(0, e, 0), s + vec3(0, e, 0)) - h,
                wrinkle_height(r + vec3(0, 0, e), s + vec3(0, 0, e)) - h) / e;
}

float pore(vec3 s) { return noise(s * 34.) * .6 + noise(s * 75.) * .4; }

vec3 skin_albedo(vec3 r, vec4 mask, out float lip) {
    vec3 s = TURN * (r + texture_offset * 3.7), a = vec3(abs(r.x), r.yz);
    lip = max(mask.x, 0.);
    float lid = max(-mask.x, 0.);
    float coarse = fbm(s * 2.2), middle = fbm(s * 9.);
    vec3 c = skin_colour * vec3(1.02, .985, .98);
    // Haemoglobin: cheeks, nose, chin, ears, and two scales of mottling.
    float red = blush * (.9 * bump(a, vec3(.62, 6.98, 1.20), vec3(.34, .27, .4))
        + .8 * bump(r, vec3(0, 6.92, 1.85), vec3(.26, .2, .35)) + .35 * bump(r, vec3(0, 6.25, 1.5), vec3(.3, .18, .3))
        + .6 * bump(a, vec3(.86, 7.1, .5), vec3(.12, .3, .3))) + (coarse - .45) * .9 + (middle - .45) * .5;
    c *= mix(vec3(1), vec3(1.04, .77, .76), clamp(red * .85, -.18, 1.3));
    // Forehead a little yellower than the cheeks, jaw a little cooler, as portrait painters have it.
    c *= mix(vec3(1), vec3(1., 1.01, .95), bump(r, vec3(0, 7.75, 1.3), vec3(.7, .3, .7)));
    c *= 1. - .14 * (noise(s * 38.) - .5) - .09 * (noise(s * 85.) - .5);
    c *= mix(vec3(1), vec3(.80, .74, .79), bump(a, vec3(.31, 7.12, 1.42), vec3(.21, .075, .25)) * (.25 + .75 * ageing));
    c *= mix(vec3(1), vec3(.86, .76, .76), bump(a, vec3(.32, 7.33, 1.45), vec3(.2, .07, .25)) * .7);
    c = mix(c, c * vec3(.45, .35, .42) + .02, eyeshadow * bump(a, vec3(.33, 7.36, 1.42), vec3(.22, .10, .25)));
    float freckle = max(spots(s * 13., .6, .28), .7 * spots(s * 19. + 5., .6, .3));
    freckle *= bump(r, vec3(0, 7.02, 1.6), vec3(.75, .35, .8));
    c *= mix(vec3(1), vec3(.72, .56, .46), freckle * freckles);
    c *= mix(vec3(1), vec3(.76, .66, .58), spots(s * 5. + 9., .35, .22) * max(0., ageing - .2));
    c *= mix(vec3(1), vec3(.45, .36, .32), spots(s * 3.1, .22, .055) * .75);
    c = mix(c, c * vec3(.45, .33, .30), lid * .45);
    c = mix(c, scalp_colour, clamp(mask.y * scalp_paint * (.72 + .28 * noise(s * 60.)), 0., 1.));
    c = mix(c, mix(c * vec3(.55, .55, .58), scalp_colour, .35), mask.z * stubble * (.55 + .45 * noise(s * 70.)));
    float line = fbm(vec3(s.x * 40., s.y * 8., s.z * 8.));
    vec3 lips = mix(c * vec3(.88, .52, .52), lip_colour, lipstick);
    return mix(c, lips * (.86 + .28 * line), lip * .9);
}

vec3 cloth_albedo(vec3 p, vec3 r, vec3 n) {
    // Patterns follow the body as seen from the front or back, so that they hang straight.
    float down = p.y - .6 * abs(p.z - .3), across = p.x;
    vec3 c = shirt;
    if (shirt_pattern == 1) c = mix(shirt, shirt_second, smoothstep(.30, .34, abs(fract(across * 3.2) - .5)));
    if (shirt_pattern == 2) {
        float u = smoothstep(.38, .42, abs(fract(across * 2.4) - .5)), v = smoothstep(.38, .42, abs(fract(down * 2.4) - .5));
        c = mix(shirt, shirt_second, .5 * (u + v));
    }
    float edge = collar_height(r) - r.y;
    c *= mix(1., .86, smoothstep(.085, .075, edge) * (neckline == 3 || abs(r.x) > .8 ? 0. : 1.));    // collar band
    c *= mix(.72, 1., smoothstep(0., .02, edge));
    float weave = noise(p * vec3(70., 26., 70.)) * .5 + noise(p * vec3(26., 90., 26.)) * .5;
    return c * (.84 + .32 * weave);
}

vec3 shade_skin(Surface s, vec3 smooth_normal, vec4 soft, int part) {
    vec3 n = s.n, bn = smooth_normal, noise_at = s.rest + texture_offset * 3.7;
    bool body = part == 0;
    bool cloth = body && s.rest.y < collar_height(s.rest);
    vec3 albedo = vec3(0), detail = n, sky_light = s.light.rgb;
    float rough = .5, specular = .028, scatter = 1., lip = 0., open = s.light.a;
    if (cloth) {
        albedo = cloth_albedo(s.p, s.rest, n);
        float fold = fbm(s.p * vec3(1.1, .8, 1.1) + texture_offset);
        vec3 slope = vec3(fbm(s.p * vec3(1.1, .8, 1.1) + vec3(.05, 0, 0) + texture_offset) - fold,
                          fbm(s.p * vec3(1.1, .8, 1.1) + vec3(0, .05, 0) + texture_offset) - fold, 0.) / .05;
        detail = normalize(n - (slope - n * dot(slope, n)) * .16);
        rough = .9, specular = .010, scatter = 0.;
    }
    if (body && !cloth) {
        albedo = skin_albedo(s.rest, s.extra, lip);
        const float e = .012;
        float h = pore(noise_at);
        vec3 slope = vec3(pore(noise_at + vec3(e, 0, 0)) - h, pore(noise_at + vec3(0, e, 0)) - h,
                          pore(noise_at + vec3(0, 0, e)) - h) / e * .0026 * (1. - lip) * (1. + .8 * ageing);
#if WRINKLES
        slope += wrinkle_slope(s.rest, noise_at) * .010 * ageing * (1. - lip);
#endif
        slope -= n * dot(slope, n);
        detail = normalize(n - slope);
        // Furrows also hold less light.
        albedo *= 1. - .35 * clamp(dot(n - detail, vec3(0, 1, 0)) * 1.5, -.25, .6) * ageing;
        float tone_level = dot(skin_colour, vec3(.3, .59, .11));
        rough = mix(.50, .34, lip) - .05 * oil;
        specular = mix(specular, .035, lip) * mix(.40, .90, oil) * mix(.6, 1., smoothstep(.02, .35, tone_level))
            * (.7 + .6 * bump(s.rest, vec3(0, 7.3, 1.6), vec3(.35, .9, .6)));
    }
    if (part == 3 || part == 4) {
        albedo = vec3(.84, .80, .70) * (.9 + .1 * noise(noise_at * 20.));
        rough = .25, specular = .04, scatter = 0., open *= .8;
        sky_light = sky_light * .9 + .16 * sky_mean();
    }
    if (part == 5) {
        albedo = vec3(.55, .20, .19) * (.8 + .4 * noise(noise_at * 20.));
        rough = .35;
    }
    vec3 light = scatter > .5 ? mix(sky_light, soft.rgb, vec3(.9, .45, .2)) : sky_light;
    light = max(light, vec3(0));
    float key = key_visibility(s.p + n * .02, .011, s.rotation);
    // Scattering: red light wraps furthest round the terminator and bleeds into shadow.
    vec3 cosine = vec3(dot(mix(detail, bn, .80 * scatter), key_direction), dot(mix(detail, bn, .42 * scatter), key_direction),
                       dot(mix(detail, bn, .15 * scatter), key_direction));
    vec3 wrap = vec3(.28, .12, .08) * scatter;
    vec3 lit = max((cosine + wrap) / (1. + wrap), 0.);
    vec3 shadow = scatter > .5 ? vec3(pow(key, .70), pow(key, .95), key) : vec3(key);
    light += key_colour * lit * shadow;
    // Thin parts (ears, nostrils) glow red when lit from behind.
    float thin = body && !cloth ? bump(vec3(abs(s.rest.x), s.rest.yz), vec3(.95, 7.1, .45), vec3(.13, .34, .26)) : 0.;
    light += key_colour * vec3(.55, .12, .06) * thin * max(0., dot(-n, key_direction)) * .8;
    light += sky_mean() * vec3(.16, .03, .01) * thin;
    vec3 c = albedo * light;
    float nv = max(dot(detail, s.view), 0.);
    float fresnel = specular + (1. - specular) * pow(1. - nv, 5.) * .45 * (1. - rough);
    c += sky_radiance(reflect(-s.view, detail)) * mix(1., open, .9) * open * fresnel * .9;
    c += key_colour * specular * key
        * (2.6 * ggx(detail, s.view, key_direction, rough) + .7 * ggx(detail, s.view, key_direction, rough * .65));
    return c;
}
