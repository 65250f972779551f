//! Vectors filled in parallel. The thread that fills a chunk zeroes it before. When one thread
//! zeroed the whole map first, zeroing took longer than the arithmetic.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Creates a vector of `total` numbers, filled in chunks of `chunk`. `fill` receives its thread's
/// state (from `init`), the index of the chunk, and the zeroed chunk. Returns the vector and the
/// results of `fill` for all chunks.
///
/// # Panics
/// When `chunk` is 0.
#[allow(unsafe_code)]
pub fn fill_parallel_with<S, T: Send>(
    total: usize,
    chunk: usize,
    init: impl Fn() -> S + Sync + Send,
    fill: impl Fn(&mut S, usize, &mut [f32]) -> T + Sync + Send,
) -> (Vec<f32>, Vec<T>) {
    let mut values: Vec<f32> = Vec::with_capacity(total);
    let spare = &mut values.spare_capacity_mut()[..total];
    let results = spare
        .par_chunks_mut(chunk)
        .enumerate()
        .map_init(
            init,
            |state, (number, part): (usize, &mut [MaybeUninit<f32>])| {
                // SAFETY: no other closure has this part. Zero bytes are the number 0.0, and
                // MaybeUninit<f32> has the layout of f32.
                let part = unsafe {
                    part.as_mut_ptr().write_bytes(0, part.len());
                    std::slice::from_raw_parts_mut(part.as_mut_ptr().cast::<f32>(), part.len())
                };
                fill(state, number, part)
            },
        )
        .collect();
    // SAFETY: the chunks cover the first `total` elements and all have been written; the capacity
    // suffices.
    unsafe { values.set_len(total) };
    (values, results)
}

/// As [`fill_parallel_with`], without thread state and results.
pub fn fill_parallel(
    total: usize,
    chunk: usize,
    fill: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    fill_parallel_with(total, chunk, || (), |(), number, part| fill(number, part)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_filled_or_zero() {
        let (values, sums) = fill_parallel_with(
            10,
            4,
            || 1.0,
            |one, number, part| {
                assert!(part.iter().all(|v| *v == 0.0));
                part[0] = number as f32 + *one;
                part.len()
            },
        );
        assert_eq!(values, [1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
        assert_eq!(sums, [4, 4, 2]);
        assert_eq!(fill_parallel(0, 3, |_, _| ()), Vec::<f32>::new());
    }
}
