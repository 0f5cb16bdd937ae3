//! Which vector instructions this machine has, and one body of code compiled for each.
//!
//! A kernel is written once, generic over [`Simd`]. `dispatch!` compiles it for every instruction set and picks the widest
//! that the processor has when it is called, so one binary runs everywhere.

use std::sync::OnceLock;

use crate::half;

/// The environment's word for the instruction set, where the machine's widest is not wanted.
const VARIABLE: &str = "PARAFLOW_CPU";

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    /// AVX-512, and its product of bf16 pairs.
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    /// 16 lanes: AVX-512 F, BW, DQ and VL.
    Avx512,
    #[cfg(target_arch = "x86_64")]
    /// 8 lanes: AVX2 with fused multiply-add and f16's conversion, as every processor with AVX2 has them.
    Avx2,
    #[cfg(target_arch = "aarch64")]
    /// 4 lanes: AArch64, all of them.
    Neon,
    /// What every machine of the architecture has.
    Portable,
}

/// The instruction set that the kernels use: the widest that the machine has, or what the environment variable
/// `PARAFLOW_CPU` names.
///
/// # Errors
/// What is wrong with the variable: it names no instruction set, or one that the machine does not have.
pub fn level() -> Result<&'static str, String> {
    Isa::chosen().as_ref().map(|isa| isa.name()).map_err(Clone::clone)
}

/// Every instruction set that this machine has, widest first, by the names that `PARAFLOW_CPU` takes.
#[must_use]
pub fn levels() -> Vec<&'static str> {
    Isa::all().into_iter().map(Isa::name).collect()
}

impl Isa {
    /// The one to compute with: the environment's, or the widest.
    #[must_use]
    pub(crate) fn best() -> Self {
        Self::chosen().as_ref().copied().unwrap_or(Self::Portable)
    }

    fn chosen() -> &'static Result<Self, String> {
        static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
        CHOSEN.get_or_init(|| match std::env::var(VARIABLE) {
            Ok(name) => Self::named(&name),
            Err(std::env::VarError::NotPresent) => Ok(Self::widest()),
            Err(std::env::VarError::NotUnicode(name)) => Self::named(&name.to_string_lossy()),
        })
    }

    fn named(name: &str) -> Result<Self, String> {
        let all = Self::all();
        all.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
            format!("{VARIABLE} expects one of {}, which this machine has, found \"{name}\"", names.join(", "))
        })
    }

    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// The widest that this machine has.
    fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let fused =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            match (is_x86_feature_detected!("avx512f") && wide && fused, fused) {
                (true, _) if is_x86_feature_detected!("avx512bf16") => Self::Avx512Bf16,
                (true, _) => Self::Avx512,
                (false, true) => Self::Avx2,
                (false, false) => Self::Portable,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            Self::Neon
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Self::Portable
        }
    }

    /// Every one that this machine has, widest first.
    pub(crate) fn all() -> Vec<Self> {
        match Self::widest() {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => vec![Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Portable],
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => vec![Self::Avx512, Self::Avx2, Self::Portable],
            Self::Portable => vec![Self::Portable],
            other => vec![other, Self::Portable],
        }
    }
}

/// A vector of f32 in one instruction set.
///
/// Code generic over it must be inlined into a function that enables the instruction set, which `dispatch!` sees to:
/// everything between here and there is `#[inline(always)]`.
pub(crate) trait Simd: Copy + 'static {
    /// One register.
    type Vector: Copy;
    /// Numbers in a register.
    const LANES: usize;
    /// Registers.
    const REGISTERS: usize;
    /// `factor` in every lane.
    fn splat(factor: f32) -> Self::Vector;
    /// `a * b + c`, rounded once where the machine can.
    fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a + b`.
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b`.
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The greater of each lane; `b` where one of them is NaN.
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `2^n` in each lane for -127 ≤ `n` ≤ 127, the least of them as zero: `n` is a whole number that 1.5 · 2^23 was added to.
    fn power(n: Self::Vector) -> Self::Vector;
    /// Both numbers of each lane rounded to bf16, `a` in the lower half of the lane.
    #[inline(always)]
    fn pair(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let (mut first, mut second) = ([0.0; 16], [0.0; 16]);
        // SAFETY: no vector is longer.
        unsafe {
            Self::store(first.as_mut_ptr(), a);
            Self::store(second.as_mut_ptr(), b);
            for lane in 0..Self::LANES {
                first[lane] = f32::from_bits(half::pair(first[lane], second[lane]));
            }
            Self::load(first.as_ptr())
        }
    }
    /// Both vectors one after the other, rounded to bf16, two neighbours in a lane.
    #[inline(always)]
    fn neighbours(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let mut numbers = [0.0; 32];
        // SAFETY: no vector is longer than sixteen.
        unsafe {
            Self::store(numbers.as_mut_ptr(), a);
            Self::store(numbers.as_mut_ptr().add(Self::LANES), b);
            for lane in 0..Self::LANES {
                numbers[lane] = f32::from_bits(half::pair(numbers[2 * lane], numbers[2 * lane + 1]));
            }
            Self::load(numbers.as_ptr())
        }
    }
    /// `c` and the sum of the products of both halves of each lane of `a` and `b`, which hold two bf16 numbers each.
    fn dot(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// # Safety
    /// [`LANES`](Self::LANES) numbers must be readable.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// # Safety
    /// [`LANES`](Self::LANES) numbers must be writable.
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    /// The f32 of f16 numbers.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) numbers must be readable.
    unsafe fn load_f16(from: *const u16) -> Self::Vector;
    /// Turns four rows of four numbers, which begin `apart` from one another, into four columns, rows of which begin
    /// `to_apart` from one another; each number times the factor of the place in its row.
    ///
    /// # Safety
    /// Four numbers must be readable at each row and at `factors`, and writable at each row of the result.
    unsafe fn turn(from: *const f32, apart: usize, factors: *const f32, to: *mut f32, to_apart: usize);
    /// [`fma`](Self::fma) of single numbers, for loops that the compiler turns into vectors.
    fn fma1(a: f32, b: f32, c: f32) -> f32;
}

#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Vector = [f32; 4];
    const LANES: usize = 4;
    // What x86-64 has at the least.
    const REGISTERS: usize = 16;
    #[inline(always)]
    fn splat(factor: f32) -> [f32; 4] {
        [factor; 4]
    }
    #[inline(always)]
    fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    fn power(n: [f32; 4]) -> [f32; 4] {
        n.map(|n| f32::from_bits(n.to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    fn dot(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        std::array::from_fn(|lane| high(a[lane]) * high(b[lane]) + (low(a[lane]) * low(b[lane]) + c[lane]))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(vector) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(half::from_f16)
    }
    #[inline(always)]
    unsafe fn turn(from: *const f32, apart: usize, factors: *const f32, to: *mut f32, to_apart: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let factors = Self::load(factors);
            let rows: [[f32; 4]; 4] = std::array::from_fn(|row| Self::mul(Self::load(from.add(row * apart)), factors));
            for place in 0..4 {
                Self::store(to.add(place * to_apart), rows.map(|row| row[place]));
            }
        }
    }
    #[inline(always)]
    fn fma1(a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction a fused product would be a call into the maths library.
        a * b + c
    }
}

/// A [`Simd`] of the given intrinsics.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd {
    ($name:ident, $vector:ty, $lanes:literal, $registers:literal, $splat:path, $fma:expr, [$add:path, $sub:path, $mul:path, $max:expr], $power:expr, $dot:expr, $load:path, $store:path, $load_f16:expr, $turn:path $(, { $($more:tt)* })?) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        // SAFETY of every block below: the type is only named by code that `dispatch!` runs on machines that have the
        // instruction set; pointers are the caller's promise.
        impl Simd for $name {
            type Vector = $vector;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            #[inline(always)]
            fn splat(factor: f32) -> $vector {
                unsafe { $splat(factor) }
            }
            #[inline(always)]
            fn fma(a: $vector, b: $vector, c: $vector) -> $vector {
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            fn add(a: $vector, b: $vector) -> $vector {
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            fn sub(a: $vector, b: $vector) -> $vector {
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            fn mul(a: $vector, b: $vector) -> $vector {
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            fn max(a: $vector, b: $vector) -> $vector {
                unsafe { $max(a, b) }
            }
            #[inline(always)]
            fn power(n: $vector) -> $vector {
                unsafe { $power(n) }
            }
            #[inline(always)]
            fn dot(a: $vector, b: $vector, c: $vector) -> $vector {
                unsafe { $dot(a, b, c) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> $vector {
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, vector: $vector) {
                unsafe { $store(to, vector) }
            }
            #[inline(always)]
            unsafe fn load_f16(from: *const u16) -> $vector {
                unsafe { $load_f16(from) }
            }
            #[inline(always)]
            unsafe fn turn(from: *const f32, apart: usize, factors: *const f32, to: *mut f32, to_apart: usize) {
                unsafe { $turn(from, apart, factors, to, to_apart) }
            }
            #[inline(always)]
            fn fma1(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }
            $($($more)*)?
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::Simd;

    /// [`Simd::turn`] in registers of four, which every x86-64 has.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn turn(from: *const f32, apart: usize, factors: *const f32, to: *mut f32, to_apart: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let factors = _mm_loadu_ps(factors);
            let row = |row: usize| _mm_mul_ps(_mm_loadu_ps(from.add(row * apart)), factors);
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
            _mm_storeu_ps(to.add(to_apart), _mm_movehl_ps(cd, ab));
            let (ab, cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            _mm_storeu_ps(to.add(2 * to_apart), _mm_movelh_ps(ab, cd));
            _mm_storeu_ps(to.add(3 * to_apart), _mm_movehl_ps(cd, ab));
        }
    }

    simd!(
        Avx512,
        __m512,
        16,
        32,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        [_mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_max_ps],
        |n| _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
            _mm512_castps_si512(n),
            _mm512_set1_epi32(127)
        ))),
        |a, b, c| {
            let high = |x| _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(-0x1_0000)));
            let low = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(x)));
            _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), c))
        },
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        |from: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())),
        turn
    );
    simd!(
        Avx512Bf16,
        __m512,
        16,
        32,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        [_mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_max_ps],
        |n| _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
            _mm512_castps_si512(n),
            _mm512_set1_epi32(127)
        ))),
        |a: __m512, b: __m512, c| {
            // Both types are the same 512 bits.
            let pairs = |x: __m512| transmute::<__m512, __m512bh>(x);
            _mm512_dpbf16_ps(c, pairs(a), pairs(b))
        },
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        |from: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())),
        turn,
        {
            #[inline(always)]
            fn pair(a: __m512, b: __m512) -> __m512 {
                // Both types are the same 256 bits.
                unsafe {
                    let half = |x| _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)));
                    _mm512_castsi512_ps(_mm512_or_si512(half(a), _mm512_slli_epi32::<16>(half(b))))
                }
            }
            #[inline(always)]
            fn neighbours(a: __m512, b: __m512) -> __m512 {
                // Both types are the same 512 bits.
                unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(b, a)) }
            }
        }
    );
    simd!(
        Avx2,
        __m256,
        8,
        16,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        [_mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_max_ps],
        |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
            _mm256_castps_si256(n),
            _mm256_set1_epi32(127)
        ))),
        |a, b, c| {
            let high = |x| _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(-0x1_0000)));
            let low = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x)));
            _mm256_fmadd_ps(high(a), high(b), _mm256_fmadd_ps(low(a), low(b), c))
        },
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        |from: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
        turn
    );
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, Avx512Bf16};

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Simd;
    use crate::half;

    /// # Safety
    /// As [`Simd::turn`].
    #[inline(always)]
    unsafe fn turn(from: *const f32, apart: usize, factors: *const f32, to: *mut f32, to_apart: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let factors = vld1q_f32(factors);
            let row = |row: usize| vmulq_f32(vld1q_f32(from.add(row * apart)), factors);
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (even, odd) = ([vtrn1q_f32(a, b), vtrn1q_f32(c, d)], [vtrn2q_f32(a, b), vtrn2q_f32(c, d)]);
            let low = |[ab, cd]: [float32x4_t; 2]| vcombine_f32(vget_low_f32(ab), vget_low_f32(cd));
            let high = |[ab, cd]: [float32x4_t; 2]| vcombine_f32(vget_high_f32(ab), vget_high_f32(cd));
            vst1q_f32(to, low(even));
            vst1q_f32(to.add(to_apart), low(odd));
            vst1q_f32(to.add(2 * to_apart), high(even));
            vst1q_f32(to.add(3 * to_apart), high(odd));
        }
    }

    simd!(
        Neon,
        float32x4_t,
        4,
        32,
        vdupq_n_f32,
        |a, b, c| vfmaq_f32(c, a, b),
        [vaddq_f32, vsubq_f32, vmulq_f32, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b)],
        |n| vreinterpretq_f32_u32(vshlq_n_u32::<23>(vaddq_u32(vreinterpretq_u32_f32(n), vdupq_n_u32(127)))),
        |a, b, c| {
            let bits = |x| vreinterpretq_u32_f32(x);
            let high = |x| vreinterpretq_f32_u32(vandq_u32(bits(x), vdupq_n_u32(0xffff_0000)));
            let low = |x| vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits(x)));
            vfmaq_f32(vfmaq_f32(c, low(a), low(b)), high(a), high(b))
        },
        vld1q_f32,
        vst1q_f32,
        |from: *const u16| vld1q_f32(from.cast::<[u16; 4]>().read_unaligned().map(half::from_f16).as_ptr()),
        turn
    );
}
#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;

/// Compiles a function generic over [`Simd`] for every instruction set, under a new name and with the [`Isa`] as its first
/// argument.
///
/// `dispatch!(fn name = body(argument: Type) -> Type)`; the body is `#[inline(always)]` and takes the arguments as they are.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident = $body:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $out:ty)?) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::Isa, $($arg: $kind),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512($($arg: $kind),*) $(-> $out)? {
                $body::<$crate::isa::Avx512>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $kind),*) $(-> $out)? {
                $body::<$crate::isa::Avx2>($($arg),*)
            }
            match isa {
                // SAFETY: `Isa::best` gives these names out on machines that have the instructions only.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::Isa::Neon => $body::<$crate::isa::Neon>($($arg),*),
                $crate::Isa::Portable => $body::<$crate::isa::Portable>($($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_found_by_its_name_or_told_what_there_is() {
        for isa in Isa::all() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("sse9").unwrap_err();
        assert!(error.starts_with("PARAFLOW_CPU expects one of ") && error.ends_with("found \"sse9\""), "{error}");
    }

    // CI sets the variable and runs all tests once more; here it must have taken effect.
    #[test]
    fn the_environment_chooses_the_level() {
        let expected = std::env::var(VARIABLE).unwrap_or_else(|_| Isa::widest().name().to_owned());
        assert_eq!(level(), Ok(expected.as_str()));
    }
}
