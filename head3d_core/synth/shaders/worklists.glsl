// Work lists of samples, one per material.
const uint SKIN = 0u, EYE = 1u, SOLID = 2u, HAIR = 3u;
const uint HAIR_FLAG = 0x80000000u;     // in a visible id: a strand segment, not a triangle
const uint ROW_FLAG = 0x80000000u;      // in an entry: the colour holds for the pixel's whole row of samples
layout(std430, binding = 13) buffer Work { uvec4 work[4]; };        // groups x, y, z of the dispatch; entries
layout(std430, binding = 14) buffer Entries { uint entries[]; };    // [4, width * width] sample slots
uniform int width;                      // samples per side
uniform int factor;                     // samples per pixel side
