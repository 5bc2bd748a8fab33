// Orthographic light cameras, one per tile of an atlas (or one for the whole map when tiles is 1 x 1).
uniform vec3 axis_u[DIRECTIONS], axis_v[DIRECTIONS], axis_d[DIRECTIONS];
uniform ivec2 tiles;
uniform vec3 centre;
uniform float half_width;

vec3 tile_direction(int tile) { return axis_d[tile]; }

vec4 tile_position(vec3 p, int tile) {
    vec3 q = (p - centre) / half_width;
    vec2 xy = vec2(dot(q, axis_u[tile]), dot(q, axis_v[tile]));
    // Outside its own tile a ribbon would paint over the neighbour's: clip at the four edges.
    gl_ClipDistance[0] = 1. - xy.x;
    gl_ClipDistance[1] = 1. + xy.x;
    gl_ClipDistance[2] = 1. - xy.y;
    gl_ClipDistance[3] = 1. + xy.y;
    vec2 corner = vec2(tile % tiles.x, tile / tiles.x);
    vec2 in_atlas = (corner + xy * .5 + .5) / vec2(tiles);
    return vec4(in_atlas * 2. - 1., -dot(q, axis_d[tile]), 1.);
}
