// Copyright (c) 2026, bitnet.devops contributors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// Goes into ggml/src/iqk/iqk_config.h (image_build_kernel_patches): what the matrix products of ik_llama.cpp take of
// Armv8.2 (products of four bytes, arithmetic of 16-bit floats), in instructions that every Armv8.0 CPU has. Without it
// the engine aborts there. Semantics: Arm Neon Intrinsics Reference.
#if defined __aarch64__ && !defined __ARM_FEATURE_DOTPROD
#include <arm_neon.h>

static inline int32x4_t v80_dotq_s32(int32x4_t sum, int8x16_t a, int8x16_t b) {
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
static inline uint32x4_t v80_dotq_u32(uint32x4_t sum, uint8x16_t a, uint8x16_t b) {
    const uint16x8_t low = vmull_u8(vget_low_u8(a), vget_low_u8(b)), high = vmull_high_u8(a, b);
    return vaddq_u32(sum, vpaddq_u32(vpaddlq_u16(low), vpaddlq_u16(high)));
}
#define vdotq_s32(sum, a, b) v80_dotq_s32(sum, a, b)
#define vdotq_u32(sum, a, b) v80_dotq_u32(sum, a, b)
#define vdotq_laneq_s32(sum, a, b, lane) \
    v80_dotq_s32(sum, a, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(b), lane)))

#if !defined __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
#define V80_LOW(a) vcvt_f32_f16(vget_low_f16(a))
#define V80_HIGH(a) vcvt_high_f32_f16(a)
#define V80_BOTH(low, high) vcvt_high_f16_f32(vcvt_f16_f32(low), high)
#define V80_TWO(name, operation)                                                                              \
    static inline float16x8_t v80_##name##q_f16(float16x8_t a, float16x8_t b) {                               \
        return V80_BOTH(operation(V80_LOW(a), V80_LOW(b)), operation(V80_HIGH(a), V80_HIGH(b)));              \
    }                                                                                                         \
    static inline float16x4_t v80_##name##_f16(float16x4_t a, float16x4_t b) {                                \
        return vcvt_f16_f32(operation(vcvt_f32_f16(a), vcvt_f32_f16(b)));                                     \
    }
V80_TWO(add, vaddq_f32)
V80_TWO(sub, vsubq_f32)
V80_TWO(mul, vmulq_f32)
V80_TWO(max, vmaxq_f32)

static inline float16x8_t v80_fmaq_f16(float16x8_t sum, float16x8_t a, float16x8_t b) {
    return V80_BOTH(vfmaq_f32(V80_LOW(sum), V80_LOW(a), V80_LOW(b)), vfmaq_f32(V80_HIGH(sum), V80_HIGH(a), V80_HIGH(b)));
}
static inline float16x8_t v80_paddq_f16(float16x8_t a, float16x8_t b) {
    return V80_BOTH(vpaddq_f32(V80_LOW(a), V80_HIGH(a)), vpaddq_f32(V80_LOW(b), V80_HIGH(b)));
}
static inline float v80_maxvq_f16(float16x8_t a) { return vmaxvq_f32(vmaxq_f32(V80_LOW(a), V80_HIGH(a))); }
static inline float16x8_t v80_absq_f16(float16x8_t a) {
    return vreinterpretq_f16_u16(vandq_u16(vreinterpretq_u16_f16(a), vdupq_n_u16(0x7fff)));
}
static inline uint16x8_t v80_ceqq_f16(float16x8_t a, float16x8_t b) {
    return vmovn_high_u32(vmovn_u32(vceqq_f32(V80_LOW(a), V80_LOW(b))), vceqq_f32(V80_HIGH(a), V80_HIGH(b)));
}
static inline float16x8_t v80_cvtq_f16_s16(int16x8_t a) {
    return V80_BOTH(vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))), vcvtq_f32_s32(vmovl_high_s16(a)));
}
static inline float16x8_t v80_cvtq_f16_u16(uint16x8_t a) {
    return V80_BOTH(vcvtq_f32_u32(vmovl_u16(vget_low_u16(a))), vcvtq_f32_u32(vmovl_high_u16(a)));
}
#define vaddq_f16(a, b) v80_addq_f16(a, b)
#define vadd_f16(a, b) v80_add_f16(a, b)
#define vsubq_f16(a, b) v80_subq_f16(a, b)
#define vmulq_f16(a, b) v80_mulq_f16(a, b)
#define vmul_f16(a, b) v80_mul_f16(a, b)
#define vmaxq_f16(a, b) v80_maxq_f16(a, b)
#define vfmaq_f16(sum, a, b) v80_fmaq_f16(sum, a, b)
#define vfmaq_lane_f16(sum, a, b, lane) v80_fmaq_f16(sum, a, vdupq_lane_f16(b, lane))
#define vpaddq_f16(a, b) v80_paddq_f16(a, b)
#define vmaxvq_f16(a) v80_maxvq_f16(a)
#define vabsq_f16(a) v80_absq_f16(a)
#define vceqq_f16(a, b) v80_ceqq_f16(a, b)
#define vcvtq_f16_s16(a) v80_cvtq_f16_s16(a)
#define vcvtq_f16_u16(a) v80_cvtq_f16_u16(a)
#endif
#endif
