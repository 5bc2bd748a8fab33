// Hair, brows and beard: Kajiya-Kay diffuse and two shifted highlights (the second takes the hair's colour).
uniform vec3 hair_root, hair_tip, brow_colour, hair_centre;
uniform float hair_gloss, grey;
uniform int strand_points, strand_step, point_step, kept_points, kept_strands;

vec4 strand_light(int strand, float along) {
    int row = min(strand / strand_step, kept_strands - 1) * kept_points;
    float x = clamp(along / float(point_step), 0., float(kept_points - 1));
    int i = min(int(x), kept_points - 2);
    return mix(hair_light[row + i], hair_light[row + i + 1], x - float(i));
}

vec3 shade_hair(vec3 p, vec3 view, int segment, float rotation, out vec3 normal) {
    int strand = segment / (strand_points - 1), i = segment % (strand_points - 1), row = strand * strand_points;
    vec4 a = hair[row + i], b = hair[row + i + 1];
    vec3 t = safe_normalize(b.xyz - a.xyz);
    vec3 before = i > 0 ? safe_normalize(a.xyz - hair[row + i - 1].xyz) : t;
    vec3 after = i + 2 < strand_points ? safe_normalize(hair[row + i + 2].xyz - b.xyz) : t;
    float f = clamp(dot(p - a.xyz, t) / max(length(b.xyz - a.xyz), 1e-6), 0., 1.);
    t = safe_normalize(mix(mix(before, t, .5), mix(t, after, .5), f));
    vec3 across = safe_normalize(cross(t, view));
    float side = clamp(dot(p - mix(a.xyz, b.xyz, f), across) / max(abs(a.w) * .5, 1e-5), -1., 1.);
    float u = (float(i) + f) / float(strand_points - 1);
    float own = hash11(float(strand)), other = hash11(float(strand) * 1.7 + .3);
    bool brow = a.w < 0.;
    vec4 light = strand_light(strand, float(i) + f);

    vec3 out_normal = safe_normalize(p - hair_centre);
    normal = safe_normalize(out_normal - t * dot(out_normal, t) + view * .35 + across * side * .45);
    vec3 colour = mix(hair_root, hair_tip, clamp(u * .6 + .4 * own, 0., 1.)) * (.84 + .32 * other);
    // Grey hair: each strand has its own threshold, softened so that a mixed head does not look salted.
    float threshold = hash11(float(strand) * 3.1 + .7);
    float white = smoothstep(threshold - .7, threshold + .7, grey * 2.2 - .6);
    colour = mix(colour, vec3(.36, .35, .335) * (.88 + .24 * own), white * .92);
    if (brow) colour = brow_colour * (.7 + .6 * own);

    float tl = dot(t, key_direction), tv = dot(t, view);
    float sine = sqrt(max(0., 1. - tl * tl));
    float wrapped = clamp(dot(normal, key_direction) * .6 + .4, 0., 1.);
    vec3 c = colour * max(light.rgb, vec3(0)) + colour * key_colour * light.a * sine * wrapped * .9;
    float shift = .12 * (own - .5) - .08;
    float angle = asin(clamp(tl, -1., 1.)) + asin(clamp(tv, -1., 1.)) + shift;
    float first = pow(max(0., cos(angle)), 70.), second = pow(max(0., cos(angle - .24)), 18.);
    float facing = clamp(dot(normal, key_direction) + .3, 0., 1.), gloss = brow ? .15 : hair_gloss;
    c += key_colour * light.a * facing * gloss * (.055 * first + .18 * second * sqrt(colour + .001));
    // The sky above acts as a second, broad lamp: the band of light that shows dark hair's shape from every side.
    vec3 above = safe_normalize(vec3(0, 1, 0) + view * .55);
    float open = clamp(dot(light.rgb, vec3(.33)) / max(dot(sky[0] * .2821, vec3(.33)), .01), 0., 1.);
    angle = asin(clamp(dot(t, above), -1., 1.)) + asin(clamp(tv, -1., 1.)) + shift;
    float band = pow(max(0., cos(angle)), 28.) * clamp(dot(normal, above) + .25, 0., 1.);
    c += sky_radiance(above) * open * gloss * band * (.05 + .2 * sqrt(colour + .001) * colour);
    return c * (1. - .14 * side * side);
}
