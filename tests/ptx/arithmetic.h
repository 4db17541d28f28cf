/* Arithmetic of PTX. Included by runtime.h. */

/* Bits of floats and back; conversions; PTX's minima and maxima, which ignore a NaN unless they end in n. */
static inline float F(uint32_t x) { float f; memcpy(&f, &x, 4); return f; }
static inline uint32_t B(float f) { uint32_t x; memcpy(&x, &f, 4); return x; }
static inline double D(uint64_t x) { double f; memcpy(&f, &x, 8); return f; }
static inline uint64_t BD(double f) { uint64_t x; memcpy(&x, &f, 8); return x; }
static inline float FZ(float f) { uint32_t x = B(f); return (x & 0x7f800000u) ? f : F(x & 0x80000000u); }
static inline uint16_t bf16(float f) { uint32_t x = B(f); if (f != f) return 0x7fff; return (x + 0x7fff + ((x >> 16) & 1)) >> 16; }
static inline uint16_t bf16z(float f) { uint32_t x = B(f); if (f != f) return 0x7fff; return x >> 16; }
static inline float fbf16(uint16_t x) { return F((uint32_t)x << 16); }
static inline uint16_t f16(float f) { _Float16 h = (_Float16)f; uint16_t x; memcpy(&x, &h, 2); return f != f ? 0x7fff : x; }
static inline float ff16(uint16_t x) { _Float16 h; memcpy(&h, &x, 2); return (float)h; }

static inline float fmax_(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return F(B(a) & B(b)); /* of two zeros, the positive one */
  return a > b ? a : b;
}
static inline float fmin_(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return F(B(a) | B(b)); /* of two zeros, the negative one */
  return a < b ? a : b;
}
static inline float fmaxn(float a, float b) { return a != a || b != b ? NAN : fmax_(a, b); }
static inline float fminn(float a, float b) { return a != a || b != b ? NAN : fmin_(a, b); }
static inline double dmax_(double a, double b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return D(BD(a) & BD(b)); /* of two zeros, the positive one */
  return a > b ? a : b;
}
static inline double dmin_(double a, double b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return D(BD(a) | BD(b)); /* of two zeros, the negative one */
  return a < b ? a : b;
}

/* Approximate instructions: the correctly rounded result, moved by EPS times the largest documented error.
   EPS is -1, 0 or 1; 2: up or down by a hash of the operands; 3: exact, but divisions multiply by a reciprocal. */
static inline double side(uint32_t bits) {
  if (EPS == 3) return 0;
  if (EPS != 2) return EPS;
  bits *= 2654435761u; bits ^= bits >> 15; bits *= 2246822519u; return (bits >> 31) ? 1.0 : -1.0;
}
static inline float approx(double exact, double relative, uint32_t bits) {
  J->approx++;
  return (float)(exact * (1.0 + side(bits) * relative));
}
static inline float ex2(float x) { if (x == 0) return 1.0f; return approx(exp2((double)x), 0x1p-22, B(x)); }
static inline float lg2(float x) {
  J->approx++;
  double v = log2((double)x), error = side(B(x)) * 0x1p-22;
  if (x > 0.5f && x < 2.0f) return x == 1.0f ? 0.0f : (float)(v + error); /* absolute near 1 */
  return (float)(v * (1.0 + error));
}
static inline float sqrt_a(float x) { return x == 0 ? x : approx(sqrt((double)x), 0x1p-23, B(x)); }
static inline float rsqrt_a(float x) { return approx(1.0 / sqrt((double)x), 0x1.2p-23, B(x)); }
static inline float rcp_a(float x) { return approx(1.0 / (double)x, 0x1p-23, B(x)); }
static inline float div_a(float x, float y) {
  if (EPS == 3) { J->approx++; return x * (float)(1.0 / (double)y); }
  if (x == 0 && y != 0 && y == y) return x / y;
  return approx((double)x / (double)y, 0x1p-22, B(x) ^ B(y) * 31);
}
static inline float sin_a(float x) { J->approx++; return (float)(sin((double)x) + side(B(x)) * 0x1.7p-21); }
static inline float cos_a(float x) { J->approx++; return (float)(cos((double)x) + side(B(x)) * 0x1.7p-21); }
static inline float tanh_a(float x) { return approx(tanh((double)x), 0x1p-11, B(x)); }

static inline int64_t to_int(double v, double lo, double hi, int64_t ilo, int64_t ihi, uint32_t line, uint32_t tid) {
  if (v != v) { fault(CVT_RANGE, line, tid, 0); return 0; }
  if (v < lo) { fault(CVT_RANGE, line, tid, 0); return ilo; }
  if (v > hi) { fault(CVT_RANGE, line, tid, 0); return ihi; }
  return (int64_t)v;
}
#define S32(v) to_int(v, -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX, LINE, tid)
#define U32(v) to_int(v, 0.0, 4294967295.0, 0, 4294967295ll, LINE, tid)
#define S16(v) to_int(v, -32768.0, 32767.0, -32768, 32767, LINE, tid)
#define U16(v) to_int(v, 0.0, 65535.0, 0, 65535, LINE, tid)
#define U8(v) to_int(v, 0.0, 255.0, 0, 255, LINE, tid)
#define S8(v) to_int(v, -128.0, 127.0, -128, 127, LINE, tid)
#define S64(v) to_int(v, -9223372036854775808.0, 9223372036854774784.0, INT64_MIN, INT64_MAX, LINE, tid)

static inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t s) {
  uint64_t ab = (uint64_t)b << 32 | a; uint32_t d = 0;
  for (int i = 0; i < 4; i++) {
    uint32_t n = (s >> 4 * i) & 15, byte = (ab >> 8 * (n & 7)) & 255;
    if (n & 8) byte = (byte & 128) ? 255 : 0;
    d |= byte << 8 * i;
  }
  return d;
}
static inline uint32_t bfe_u32(uint32_t a, uint32_t p, uint32_t n) {
  p &= 255; n &= 255;
  if (p > 31 || !n) return 0;
  a >>= p;
  return n >= 32 ? a : a & ((1u << n) - 1);
}
static inline uint32_t bfe_s32(uint32_t a, uint32_t p, uint32_t n) {
  p &= 255; n &= 255; if (!n) return 0;
  uint32_t top = p + n - 1 > 31 ? 31 : p + n - 1, sign = (a >> top) & 1, d = 0;
  for (uint32_t i = 0; i < 32; i++) d |= (i < n && p + i <= 31 ? (a >> (p + i)) & 1 : sign) << i;
  return d;
}
static inline uint64_t bfe_u64(uint64_t a, uint32_t p, uint32_t n) {
  p &= 255; n &= 255;
  if (p > 63 || !n) return 0;
  a >>= p;
  return n >= 64 ? a : a & ((1ull << n) - 1);
}
static inline uint64_t bfe_s64(uint64_t a, uint32_t p, uint32_t n) {
  p &= 255; n &= 255; if (!n) return 0;
  uint32_t top = p + n - 1 > 63 ? 63 : p + n - 1; uint64_t sign = (a >> top) & 1, d = 0;
  for (uint32_t i = 0; i < 64; i++) d |= (i < n && p + i <= 63 ? (a >> (p + i)) & 1 : sign) << i;
  return d;
}
static inline uint32_t shl32(uint32_t a, uint32_t n) { return n > 31 ? 0 : a << n; }
static inline uint64_t shl64(uint64_t a, uint32_t n) { return n > 63 ? 0 : a << n; }
static inline uint16_t shl16(uint16_t a, uint32_t n) { return n > 15 ? 0 : a << n; }
static inline uint32_t shr32(uint32_t a, uint32_t n) { return n > 31 ? 0 : a >> n; }
static inline uint64_t shr64(uint64_t a, uint32_t n) { return n > 63 ? 0 : a >> n; }
static inline uint16_t shr16(uint16_t a, uint32_t n) { return n > 15 ? 0 : a >> n; }
static inline int32_t sar32(int32_t a, uint32_t n) { return a >> (n > 31 ? 31 : n); }
static inline int64_t sar64(int64_t a, uint32_t n) { return a >> (n > 63 ? 63 : n); }
static inline int16_t sar16(int16_t a, uint32_t n) { return a >> (n > 15 ? 15 : n); }

/* Division by zero is a fault; the smallest number by -1 wraps. */
#define DIVIDE(T, NAME) \
  static inline T div_##NAME(T a, T b, uint32_t line, uint32_t tid) { \
    if (!b) { fault(DIV_ZERO, line, tid, 0); return (T)-1; } \
    if ((T)-1 < 0 && b == (T)-1) return -(uint64_t)a; \
    return a / b; \
  } \
  static inline T rem_##NAME(T a, T b, uint32_t line, uint32_t tid) { \
    if (!b) { fault(DIV_ZERO, line, tid, 0); return a; } \
    if ((T)-1 < 0 && b == (T)-1) return 0; \
    return a % b; \
  }
DIVIDE(int32_t, s32) DIVIDE(uint32_t, u32) DIVIDE(int64_t, s64) DIVIDE(uint64_t, u64) DIVIDE(int16_t, s16) DIVIDE(uint16_t, u16)
