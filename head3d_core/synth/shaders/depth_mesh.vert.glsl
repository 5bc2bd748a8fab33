// Orthographic depth of the occluder: one instance per light direction, each into its tile of the atlas.
#include "tiles.glsl"
in vec3 position;

void main() { gl_Position = tile_position(position, gl_InstanceID); }
