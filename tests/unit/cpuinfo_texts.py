# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts in the form of /proc/cpuinfo, made from what the kernel shows of each CPU (shortened)."""

from __future__ import annotations

V1 = "fpu tsc msr cx8 apic sep cmov clflush mmx fxsr sse sse2 ht syscall nx rdtscp lm constant_tsc"
V2 = f"{V1} pni pclmulqdq ssse3 cx16 sse4_1 sse4_2 popcnt aes lahf_lm"
V3 = f"{V2} xsave avx f16c rdrand fma movbe abm fsgsbase bmi1 avx2 bmi2 erms"
V4 = f"{V3} avx512f avx512dq avx512cd avx512bw avx512vl"
ICE_LAKE = f"{V4} avx512ifma avx512vbmi umip avx512_vbmi2 gfni vaes avx512_vnni avx512_bitalg avx512_vpopcntdq rdpid"
ALDER_LAKE = f"{V3} smap clflushopt clwb sha_ni avx_vnni umip gfni vaes vpclmulqdq waitpkg serialize"
ZEN_4 = f"{ICE_LAKE} avx512_bf16"
SAPPHIRE_RAPIDS = f"{ZEN_4} avx_vnni avx512_fp16 amx_bf16 amx_tile amx_int8"

A53 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
N1 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
V1_ARM = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 "
    "sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg dcpodp svei8mm svebf16 i8mm bf16 "
    "dgh rng"
)
V2_ARM = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 "
    "asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 sveaes svepmull svebitperm "
    "svesha3 flagm2 frint svei8mm svebf16 i8mm bf16 dgh rng bti"
)
# Apple's M2 as Linux sees it: i8mm and bf16, no SVE.
M2 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 "
    "asimddp sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp flagm2 frint i8mm bf16 bti ecv"
)


def x86(flags: str, vendor: str = "GenuineIntel", model: str = "", count: int = 2) -> str:
    return "".join(
        f"processor\t: {number}\nvendor_id\t: {vendor}\ncpu family\t: 6\nmodel name\t: {model}\nflags\t\t: {flags}\n"
        f"vmx flags\t: vnmi preemption_timer\nbugs\t\t: spectre_v1\n\n"
        for number in range(count)
    )


def arm(*cores: tuple[int, int, str]) -> str:
    """Of (implementer, part, Features) for each core."""
    return "".join(
        f"processor\t: {number}\nBogoMIPS\t: 50.00\nFeatures\t: {features}\nCPU implementer\t: 0x{implementer:02x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0x{part:03x}\nCPU revision\t: 4\n\n"
        for number, (implementer, part, features) in enumerate(cores)
    )


HOSTS = {
    "haswell": x86(V3, model="Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz"),
    "ice-lake": x86(ICE_LAKE, model="Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz"),
    "alder-lake": x86(ALDER_LAKE, model="12th Gen Intel(R) Core(TM) i7-12700"),
    "skylake-x": x86(V4, model="Intel(R) Xeon(R) Platinum 8124M CPU @ 3.00GHz"),
    "zen-4": x86(ZEN_4, "AuthenticAMD", "AMD EPYC 9R14"),
    "sapphire-rapids": x86(SAPPHIRE_RAPIDS, model="Intel(R) Xeon(R) Platinum 8488C"),
    "nehalem": x86(V2, model="Intel(R) Xeon(R) CPU X5570 @ 2.93GHz"),
    "cortex-a53": arm(*[(0x41, 0xD03, A53)] * 4),
    "cortex-a76": arm(*[(0x41, 0xD0B, N1)] * 4) + "Hardware\t: BCM2712\nModel\t\t: a small board\n",
    "neoverse-n1": arm(*[(0x41, 0xD0C, N1)] * 2),
    "neoverse-v1": arm(*[(0x41, 0xD40, V1_ARM)] * 2),
    "graviton4": arm(*[(0x41, 0xD4F, V2_ARM)] * 2),
    "apple-m2": arm(*[(0x61, 0x032, M2)] * 4, *[(0x61, 0x033, M2)] * 4),
    "unknown": arm(*[(0x70, 0x663, N1)] * 2),
}
