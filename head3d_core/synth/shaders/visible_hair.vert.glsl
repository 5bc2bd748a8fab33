// Which strand segment is seen: ribbons that face the camera.
layout(std430, binding = 9) buffer Hair { vec4 hair[]; };
uniform mat4 view_projection;
uniform vec3 eye;
uniform int strand_points;
uniform float taper;            // share of the width lost at the tip

void main() {
    int strand = gl_VertexID / (2 * strand_points);
    int i = (gl_VertexID / 2) % strand_points;
    float side = float(gl_VertexID % 2) - .5;
    int row = strand * strand_points;
    vec4 point = hair[row + i];
    vec3 t = hair[row + min(i + 1, strand_points - 1)].xyz - hair[row + max(i - 1, 0)].xyz;
    vec3 across = cross(t, eye - point.xyz);
    across /= max(length(across), 1e-6);
    float u = float(i) / float(strand_points - 1);
    float width = abs(point.w) * (1. - taper * u * u);
    gl_Position = view_projection * vec4(point.xyz + across * width * side, 1.);
}
