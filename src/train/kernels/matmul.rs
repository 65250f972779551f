//! Matrix products by the crate `gemm`. On processors with AVX-512 it is twice as fast as
//! `matrixmultiply`, which `ndarray` uses.

use ndarray::{ArrayView2, ArrayViewMut2};

/// Writes `a` times `b` to `out`, on the calling thread.
///
/// # Panics
/// When the shapes do not match.
#[allow(unsafe_code)]
pub fn multiply(
    a: &ArrayView2<'_, f32>,
    b: &ArrayView2<'_, f32>,
    out: &mut ArrayViewMut2<'_, f32>,
) {
    let ((m, k), n) = (a.dim(), b.ncols());
    assert!(
        b.nrows() == k && out.dim() == (m, n),
        "{m}x{k} times {:?} does not give {:?}",
        b.dim(),
        out.dim()
    );
    let (out_strides, a_strides, b_strides) = (
        out.strides().to_vec(),
        a.strides().to_vec(),
        b.strides().to_vec(),
    );
    // SAFETY: the views are borrowed until the call returns. `out` is borrowed mutably, so it
    // overlaps no input. Dimensions and strides (in elements) are those of the views, so every
    // access is inside a view.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            out_strides[1],
            out_strides[0],
            false,
            a.as_ptr(),
            a_strides[1],
            a_strides[0],
            b.as_ptr(),
            b_strides[1],
            b_strides[0],
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn products_equal_those_of_ndarray() {
        let random =
            |rows, columns| Array2::from_shape_simple_fn((rows, columns), || fastrand::f32() - 0.5);
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (48, 27, 130), (17, 64, 33)] {
            let (a, b, bt) = (random(m, k), random(k, n), random(n, k));
            let mut out = Array2::from_elem((m, n), f32::NAN);
            multiply(&a.view(), &b.view(), &mut out.view_mut());
            assert!((&out - &a.dot(&b)).iter().all(|d| d.abs() < 1e-4));
            multiply(&a.view(), &bt.t(), &mut out.view_mut());
            assert!((&out - &a.dot(&bt.t())).iter().all(|d| d.abs() < 1e-4));
        }
    }
}
