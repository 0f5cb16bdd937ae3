//! Which vector instructions this machine has, and one body of code compiled for each.
//!
//! A kernel is written once, generic over [`Simd`]. `dispatch!` compiles it for every instruction set and picks the widest
//! that the processor has when it is called, so one binary runs everywhere.

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    /// 16 lanes: AVX-512 F, BW, DQ and VL.
    Avx512,
    #[cfg(target_arch = "x86_64")]
    /// 8 lanes: AVX2 with fused multiply-add.
    Avx2,
    #[cfg(target_arch = "aarch64")]
    /// 4 lanes: AArch64, all of them.
    Neon,
    /// What every machine of the architecture has.
    #[cfg_attr(all(target_arch = "aarch64", not(test)), expect(dead_code, reason = "only tests compare with it there"))]
    Portable,
}

impl Isa {
    /// The widest that this machine has.
    #[must_use]
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let fused = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match (is_x86_feature_detected!("avx512f") && wide && fused, fused) {
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

    /// Every one that this machine has, for tests.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        match Self::best() {
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
    /// `factor` in every lane.
    fn splat(factor: f32) -> Self::Vector;
    /// `a * b + c`, rounded once where the machine can.
    fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a + b`.
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// # Safety
    /// [`LANES`](Self::LANES) numbers must be readable.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// # Safety
    /// [`LANES`](Self::LANES) numbers must be writable.
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    /// [`fma`](Self::fma) of single numbers, for loops that the compiler turns into vectors.
    fn fma1(a: f32, b: f32, c: f32) -> f32;
}

#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Vector = [f32; 4];
    const LANES: usize = 4;
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
    fn fma1(a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction a fused product would be a call into the maths library.
        a * b + c
    }
}

/// A [`Simd`] of the given intrinsics.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd {
    ($name:ident, $vector:ty, $lanes:literal, $splat:path, $fma:expr, $add:path, $load:path, $store:path) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        // SAFETY of every block below: the type is only named by code that `dispatch!` runs on machines that have the
        // instruction set; pointers are the caller's promise.
        impl Simd for $name {
            type Vector = $vector;
            const LANES: usize = $lanes;
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
            unsafe fn load(from: *const f32) -> $vector {
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, vector: $vector) {
                unsafe { $store(to, vector) }
            }
            #[inline(always)]
            fn fma1(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    simd!(Avx512, __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_loadu_ps, _mm512_storeu_ps);
    simd!(Avx2, __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_loadu_ps, _mm256_storeu_ps);
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Simd;

    simd!(Neon, float32x4_t, 4, vdupq_n_f32, |a, b, c| vfmaq_f32(c, a, b), vaddq_f32, vld1q_f32, vst1q_f32);
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
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $kind),*) $(-> $out)? {
                $body::<$crate::isa::Avx512>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $kind),*) $(-> $out)? {
                $body::<$crate::isa::Avx2>($($arg),*)
            }
            match isa {
                // SAFETY: `Isa::best` gives these names out on machines that have the instructions only.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::Isa::Neon => $body::<$crate::isa::Neon>($($arg),*),
                _ => $body::<$crate::isa::Portable>($($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;
