//! Prefetching: background threads compute items before they are needed; the order is kept.

use std::sync::mpsc::{Receiver, sync_channel};

/// Yields the results of `make` for the steps `first` to `last` (exclusive), in order. `loaders`
/// threads compute them in advance; up to three results of each thread are queued. The threads end
/// when the iterator is dropped.
pub fn prefetch<T: Send + 'static>(
    make: impl Fn(usize) -> T + Clone + Send + 'static,
    first: usize,
    last: usize,
    loaders: usize,
) -> impl Iterator<Item = T> {
    let loaders = loaders.max(1);
    let lanes: Vec<Receiver<T>> = (0..loaders)
        .map(|lane| {
            let (sender, receiver) = sync_channel(3);
            let make = make.clone();
            std::thread::spawn(move || {
                (first + lane..last)
                    .step_by(loaders)
                    .take_while(|&s| sender.send(make(s)).is_ok())
                    .count()
            });
            receiver
        })
        .collect();
    (0..last.saturating_sub(first)).map_while(move |i| lanes[i % loaders].recv().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_depend_on_the_number_of_threads() {
        for loaders in [0, 1, 3] {
            assert_eq!(
                prefetch(|step| step * step, 2, 9, loaders).collect::<Vec<_>>(),
                [4, 9, 16, 25, 36, 49, 64]
            );
        }
        assert_eq!(prefetch(|step| step, 9, 9, 2).count(), 0);
    }
}
