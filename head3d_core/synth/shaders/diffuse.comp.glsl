// One step of light diffusing under the skin: every vertex mixes with the mean of its neighbours.
layout(local_size_x = 64) in;
layout(std430, binding = 11) buffer Source { vec4 source[]; };       // [skin]
layout(std430, binding = 12) buffer Target { vec4 target[]; };       // [skin]
layout(std430, binding = 13) buffer Starts { uint starts[]; };       // [skin + 1]
layout(std430, binding = 14) buffer Neighbours { uint neighbours[]; };
uniform int count;
uniform float share;            // of the neighbours

void main() {
    uint k = gl_GlobalInvocationID.x;
    if (k >= uint(count)) return;
    uint first = starts[k], last = starts[k + 1u];
    vec4 total = vec4(0);
    for (uint i = first; i < last; i++) total += source[neighbours[i]];
    float degree = float(last - first);
    target[k] = degree > 0. ? mix(source[k], total / degree, share) : source[k];
}
