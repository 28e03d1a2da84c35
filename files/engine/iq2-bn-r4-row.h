// Copyright (c) 2026, bitnet.devops contributors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// The body of mul_mat_iq2_bn_r4_q8_k16<1> of ik_llama.cpp where there is AVX-512 with VNNI; the engine itself falls back to
// products on 256 bits without VNNI. Four rows of weights, which lie interleaved, are multiplied at once with the one row of
// activations. The two bits of a weight stay where they are in their byte, so products come out 1, 4, 16 or 64 times too large,
// which the sums in 32 bits have room for (192 * 127 in each product), and are shifted right in the end: nothing is rounded.
// Memory is read in its order: eight rows in two streams gave half of the bandwidth on a Zen 4.
Q8_16<1> q8(info);
const int nb = n / QK_IQ1BN;
const __m512i masks[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30), _mm512_set1_epi8(char(0xc0))};
const auto dy = q8.scale(0);
for (int ix = 0; ix < nrc_x; ix += 4) {
    const float * scales = (const float *)((const char *)vx + ix*bx);
    const __m512i * bits = (const __m512i *)(scales + 4);
    __m512i acc[4] = {};
    for (int ib = 0; ib < nb; ++ib) {
        const auto y = q8.load_quants64(0, ib);
        const __m512i sy[4] = {_mm512_shuffle_epi32(y, _MM_PERM_ENUM(0x00)), _mm512_shuffle_epi32(y, _MM_PERM_ENUM(0x55)),
                               _mm512_shuffle_epi32(y, _MM_PERM_ENUM(0xaa)), _mm512_shuffle_epi32(y, _MM_PERM_ENUM(0xff))};
        const auto x = _mm512_loadu_si512(bits + ib);
        for (int l = 0; l < 4; ++l) {
            acc[l] = _mm512_dpbusd_epi32(acc[l], _mm512_and_si512(x, masks[l]), sy[l]);
        }
    }
    const auto sum = _mm512_add_epi32(_mm512_add_epi32(acc[0], _mm512_srai_epi32(acc[1], 2)),
                                      _mm512_add_epi32(_mm512_srai_epi32(acc[2], 4), _mm512_srai_epi32(acc[3], 6)));
    const auto sumf = _mm512_cvtepi32_ps(sum);
    const auto dx = _mm_loadu_ps(scales);
    auto sum4 = _mm_mul_ps (_mm512_extractf32x4_ps(sumf, 0), _mm_mul_ps(dx, _mm_shuffle_ps(dy, dy, 0x00)));
    sum4 = _mm_fmadd_ps(_mm512_extractf32x4_ps(sumf, 1), _mm_mul_ps(dx, _mm_shuffle_ps(dy, dy, 0x55)), sum4);
    sum4 = _mm_fmadd_ps(_mm512_extractf32x4_ps(sumf, 2), _mm_mul_ps(dx, _mm_shuffle_ps(dy, dy, 0xaa)), sum4);
    sum4 = _mm_fmadd_ps(_mm512_extractf32x4_ps(sumf, 3), _mm_mul_ps(dx, _mm_shuffle_ps(dy, dy, 0xff)), sum4);
    sum4 = _mm_fmadd_ps(dx, _mm_set1_ps(-q8.sum_row(0)), sum4);
    info.store(ix, 0, sum4);
}
