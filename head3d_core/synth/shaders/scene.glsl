// Textured pictures to stand behind a head: eight kinds, drawn from a seed, slightly out of focus.

float scene_hash(int seed, int k) { return hash11(float(seed % 9973) * .731 + float(seed / 9973) * .317 + float(k) * 7.13); }
vec3 scene_tint(int seed, int k) {
    float hue = scene_hash(seed, k) * 6.;
    vec3 pure = clamp(abs(mod(hue + vec3(0, 4, 2), 6.) - 3.) - 1., 0., 1.);
    return mix(vec3(.5), pure, .06 + .4 * scene_hash(seed, k + 1)) * (.30 + .75 * scene_hash(seed, k + 2));
}

vec3 scene_colour(vec2 uv, int seed) {
    int kind = int(scene_hash(seed, 0) * 8.);
    vec2 p = (uv - .5) * (.8 + .9 * scene_hash(seed, 1));
    float turn = (scene_hash(seed, 2) - .5) * .35, ripple = scene_hash(seed, 3) * 40.;
    p = mat2(cos(turn), -sin(turn), sin(turn), cos(turn)) * p + 3. * vec2(scene_hash(seed, 4), scene_hash(seed, 5));
    vec3 a = scene_tint(seed, 10), b = scene_tint(seed, 20), c = scene_tint(seed, 30), o = vec3(0);
    vec3 s = vec3(p * 6., ripple);
    if (kind == 0) {          // leaves and sky, out of focus
        float leaf = fbm(s * 1.3), fine = fbm(s * 4.);
        o = mix(vec3(.10, .20, .07) + .2 * a * vec3(.5, 1, .4), vec3(.62, .76, .86), smoothstep(.42, .62, leaf + .25 * (.5 - uv.y)));
        o *= .6 + .8 * fine;
    }
    if (kind == 1) {     // bricks
        vec2 q = p * vec2(7., 16.);
        q.x += .5 * mod(floor(q.y), 2.);
        vec2 f = fract(q), e = smoothstep(vec2(0), vec2(.05, .12), f) * smoothstep(vec2(0), vec2(.05, .12), 1. - f);
        o = mix(vec3(.55) * (.5 + b), a * (.7 + .6 * hash31(vec3(floor(q), ripple))), e.x * e.y) * (.8 + .4 * fbm(s * 6.));
    }
    if (kind == 2) {     // a street of windows
        vec2 q = p * vec2(9., 11.), f = fract(q);
        float pane = step(.22, f.x) * step(f.x, .8) * step(.25, f.y) * step(f.y, .85);
        float on = hash31(vec3(floor(q), ripple));
        o = mix(a * (.8 + .4 * fbm(s * 3.)), mix(b * .5, vec3(.95, .85, .6), step(.6, on)) * (.5 + .7 * on), pane);
    }
    if (kind == 3) {     // mottled studio cloth
        o = mix(a, b, smoothstep(.2, .75, fbm(s * .8 + fbm(s * .5) * 2.))) * (.75 + .5 * fbm(s * 3.));
        o *= 1.1 - .7 * length(uv - .5);
    }
    if (kind == 4) {     // book shelves
        float shelf = p.y * 4.2, row = floor(shelf), x = p.x * 26. + 9. * hash11(row + ripple), book = floor(x);
        float tall = .62 + .33 * hash31(vec3(book, row, ripple)), level = 1. - fract(shelf);
        vec3 spine = mix(mix(a, b, hash31(vec3(book, row, 1.))), c, hash31(vec3(book, row, 2.)));
        spine *= (.5 + .7 * hash31(vec3(book, row, 3.))) * (.55 + .45 * sin(fract(x) * PI));
        o = level > .94 ? vec3(.35, .24, .15) : level < tall ? spine : vec3(.06, .05, .05);
    }
    if (kind == 5) {     // wood panels
        float plank = floor(p.x * 6.), grain = fbm(vec3(p.x * 60., p.y * 4., plank * 7. + ripple));
        o = mix(vec3(.52, .34, .2), a, .35) * (.6 + .55 * grain) * (.8 + .4 * hash11(plank + ripple));
        o *= smoothstep(0., .04, fract(p.x * 6.));
    }
    if (kind == 6) {     // lights in the dark, out of focus
        o = mix(a, b, uv.y) * .22 + .05 * fbm(s);
        for (int k = 0; k < 22; k++) {
            vec2 at = vec2(scene_hash(seed, 100 + 3 * k), scene_hash(seed, 101 + 3 * k));
            float radius = .025 + .06 * scene_hash(seed, 102 + 3 * k), d = length(uv - at);
            vec3 glow = mix(vec3(1., .8, .5), scene_tint(seed, 200 + k) * 1.3, scene_hash(seed, 300 + k));
            o += glow * (.35 + .25 * smoothstep(.8, 1., d / radius)) * smoothstep(radius, radius * .9, d);
        }
    }
    if (kind == 7) {          // painted wall, warped
        vec3 w = s + 3. * vec3(fbm(s), fbm(s + 9.), 0.);
        o = mix(mix(a, b, smoothstep(.3, .7, fbm(w))), c, smoothstep(.5, .7, fbm(w * 1.7 + 5.)));
        o *= .75 + .5 * fbm(s * 8.);
    }
    return clamp(o * (.85 + .5 * scene_hash(seed, 6)), 0., 1.);
}
