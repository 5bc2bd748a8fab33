// Eyeballs. The iris is drawn by angle from the gaze axis (+z of the local direction), seen through a cornea.
uniform vec3 iris_inner, iris_outer;

vec3 shade_eye(Surface s) {
    vec3 o = normalize(s.rest);
    float angle = acos(clamp(o.z, -1., 1.)), around = atan(o.y, o.x);
    const float iris_angle = .435, pupil = .36;
    float r = angle / iris_angle;
    float fibres = noise(vec3(cos(around) * 9., sin(around) * 9., r * 2.) + texture_offset * 5.) * .6
        + noise(vec3(cos(around) * 22., sin(around) * 22., r * 3.) + texture_offset) * .4;
    vec3 white = vec3(.66, .625, .60) * mix(1., .86, smoothstep(.5, 1.5, angle));
    float vein = smoothstep(.62, .8, noise(o * 9. + texture_offset * 3.)) * smoothstep(.55, 1.3, angle);
    white = mix(white, vec3(.75, .50, .46), vein * .45);
    white = mix(white, white * vec3(1., .93, .84), ageing * .6);
    vec3 iris = mix(iris_inner, iris_outer, smoothstep(.3, .75, r + .5 * (fibres - .5))) * (.68 + 1.0 * fibres);
    iris *= mix(.55, 1., smoothstep(.35, .55, r)) * (1. - .65 * smoothstep(.80, 1., r));    // collarette, limbal ring
    // The cornea focuses light on the side of the iris away from the lamp.
    vec3 lamp = normalize(key_direction + vec3(0, .2, .2));
    iris *= 1. + .55 * clamp(-dot(normalize(s.n - .9 * dot(s.n, s.view) * s.view), lamp), -.5, 1.);
    iris = mix(vec3(.006), iris, smoothstep(pupil - .05, pupil + .05, r));
    vec3 albedo = mix(iris, white, smoothstep(.90, 1.10, r));
    // The upper lid and its lashes shade the top of the ball; the lids' edges darken the corners.
    albedo *= vec3(1. - .60 * smoothstep(-.05, .42, o.y)) * mix(vec3(1), vec3(.72, .58, .54), smoothstep(.55, 1.05, abs(o.x)));
    float key = key_visibility(s.p + s.n * .03, .012, s.rotation);
    vec3 light = max(s.light.rgb, vec3(0)) + key_colour * max(dot(s.n, key_direction) * .8 + .2, 0.) * key;
    light = light * 1.05 + .10 * max(dot(sky[0] * .2821, vec3(.33)), 0.);
    vec3 c = albedo * light;
    // Catchlight of the key light on the cornea, and a faint image of the sky.
    vec3 mirror = reflect(-s.view, s.n);
    // A lamp seen in the eye is far brighter than the iris: enough of it to survive the filter to pixels.
    float glint = smoothstep(.968, .984, dot(mirror, normalize(key_direction * vec3(.8, .35, 1) + vec3(0, .15, .4))));
    c += (key_colour + .35 * sky_mean()) * glint * 1.3 * (.5 + .5 * key) * smoothstep(1.4, .8, r);
    float fresnel = .03 + .5 * pow(1. - max(dot(s.n, s.view), 0.), 5.);
    return c + sky_radiance(mirror) * fresnel * 1.2 * s.light.a;
}
