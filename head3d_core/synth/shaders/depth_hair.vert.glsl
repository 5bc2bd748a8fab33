// Orthographic depth of a thinned set of strands as ribbons that face the light.
#include "tiles.glsl"
layout(std430, binding = 9) buffer Hair { vec4 hair[]; };
uniform int strand_points;      // P
uniform int strand_step;        // every so many strands
uniform int point_step;         // every so many points along a strand
uniform int kept_points;        // points kept along a strand
uniform float ribbon_width;     // dm; wide, since few strands stand for many

void main() {
    int strand = (gl_VertexID / (2 * kept_points)) * strand_step;
    int i = min(((gl_VertexID / 2) % kept_points) * point_step, strand_points - 1);
    float side = float(gl_VertexID % 2) - .5;
    int row = strand * strand_points;
    vec3 p = hair[row + i].xyz;
    vec3 t = hair[row + min(i + 1, strand_points - 1)].xyz - hair[row + max(i - 1, 0)].xyz;
    vec3 across = cross(t, tile_direction(gl_InstanceID));
    across /= max(length(across), 1e-6);
    gl_Position = tile_position(p + across * ribbon_width * side, gl_InstanceID);
}
