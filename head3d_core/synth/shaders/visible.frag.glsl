layout(location = 0) out uint seen;
uniform uint flag;              // 0 mesh, 1 << 31 hair

void main() { seen = uint(gl_PrimitiveID) | flag; }
