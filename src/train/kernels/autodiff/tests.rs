use super::*;
use burn::tensor::TensorData;

type B = Autodiff<Flex>;
type Affine = fn(Tensor<B, 4>, Tensor<B, 1>, Tensor<B, 1>, Activation) -> Tensor<B, 4>;
type Normalising = fn(Tensor<B, 4>, Tensor<B, 1>, Tensor<B, 1>, f32, Activation) -> Normalised<B>;

/// Random values. burn's generator is not used, because it is shared by the process and other tests
/// depend on its sequence.
fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    let values: Vec<f32> = std::iter::repeat_with(|| 3.0 * fastrand::f32() - 1.3)
        .take(shape.iter().product())
        .collect();
    Tensor::<B, D>::from_data(TensorData::new(values, shape), &Default::default()).require_grad()
}

/// Largest difference, relative to the largest value.
fn apart<const D: usize>(a: Tensor<Flex, D>, b: Tensor<Flex, D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let scale = b.clone().abs().max().into_scalar().max(1e-3);
    (a - b).abs().max().into_scalar() / scale
}

/// A sum with a different weight for every value, so that derivatives at wrong positions are
/// detected.
fn weighed(maps: Tensor<B, 4>) -> Tensor<B, 1> {
    let dims = maps.dims();
    let factors: Vec<f32> = (0..dims.iter().product::<usize>())
        .map(|i| ((i * 7919) % 101) as f32 / 50.0 - 1.0)
        .collect();
    (maps * Tensor::from_data(TensorData::new(factors, dims), &Default::default())).sum()
}

/// Compares the kernels with burn's convolution for all kinds of convolutions, odd sizes, and
/// batches with an incomplete last group.
#[test]
fn convolutions_and_derivatives_equal_burns() {
    let shapes = [
        (Shape::full(3, 5, 2), [7, 17, 9]),
        (Shape::full(4, 6, 1), [40, 4, 8]),
        (Shape::full(2, 3, 1), [1, 1, 2]),
        (Shape::point(5, 4), [3, 6, 6]),
        (Shape::point(5, 4), [2, 32, 20]),
        (Shape::depthwise(6, 1), [3, 9, 7]),
        (Shape::depthwise(4, 2), [2, 8, 11]),
    ];
    for (shape, [n, h, w]) in shapes {
        let (from, to) = shape.channels;
        let (x, weight) = (
            random([n, from, h, w]),
            random([to, from / shape.groups(), shape.kernel, shape.kernel]),
        );
        let run = |f: fn(Tensor<B, 4>, Tensor<B, 4>, Shape) -> Tensor<B, 4>| {
            let maps = f(x.clone(), weight.clone(), shape);
            let grads = weighed(maps.clone()).backward();
            [
                maps.inner(),
                x.grad(&grads).expect("on the tape"),
                weight.grad(&grads).expect("on the tape"),
            ]
        };
        for (ours, burns) in run(B::convolve)
            .into_iter()
            .zip(run(backend::composed_convolve::<B>))
        {
            let worst = apart(ours, burns);
            assert!(worst < 1e-5, "{shape:?} on {n} maps of {h}x{w}: {worst}");
        }
        let plain = Flex::convolve(x.clone().inner(), weight.clone().inner(), shape);
        assert!(apart(plain, B::convolve(x, weight, shape).inner()) < 1e-6);
    }
}

#[test]
fn convolutions_with_bias_and_derivatives_equal_burns() {
    for (shape, [n, h, w]) in [
        (Shape::full(3, 5, 2), [7, 17, 9]),
        (Shape::point(5, 4), [3, 6, 6]),
        (Shape::point(5, 4), [2, 32, 20]),
        (Shape::depthwise(6, 2), [3, 9, 7]),
    ] {
        for activation in [Activation::Linear, Activation::Relu, Activation::Relu6] {
            let (from, to) = shape.channels;
            let (x, weight, bias) = (
                random([n, from, h, w]),
                random([to, from / shape.groups(), shape.kernel, shape.kernel]),
                random([to]),
            );
            let run = |ours: bool| {
                let (x, weight, bias) = (x.clone() * 2.0, weight.clone(), bias.clone());
                let maps = match ours {
                    true => B::convolve_with_bias(x, weight, bias, shape, activation),
                    false => {
                        backend::composed_convolve_with_bias(x, weight, bias, shape, activation)
                    }
                };
                (maps.clone().inner(), weighed(maps).backward())
            };
            let ((ours, our_grads), (burns, burn_grads)) = (run(true), run(false));
            let plain = Flex::convolve_with_bias(
                x.clone().inner() * 2.0,
                weight.clone().inner(),
                bias.clone().inner(),
                shape,
                activation,
            );
            assert!(
                apart(ours.clone(), burns) < 1e-5 && apart(plain, ours) < 1e-6,
                "{shape:?} {activation:?}"
            );
            let by = |grads: &_| {
                (
                    x.grad(grads).expect("on the tape"),
                    weight.grad(grads).expect("on the tape"),
                    bias.grad(grads).expect("on the tape"),
                )
            };
            let ((x1, w1, b1), (x2, w2, b2)) = (by(&our_grads), by(&burn_grads));
            assert!(
                apart(x1, x2) < 1e-4 && apart(w1, w2) < 1e-4 && apart(b1, b2) < 1e-4,
                "{shape:?} {activation:?}"
            );
        }
    }
}

#[test]
fn normalisation_and_derivatives_equal_burns() {
    for activation in [Activation::Linear, Activation::Relu, Activation::Relu6] {
        let (x, gamma, beta) = (random([5, 3, 7, 4]), random([3]), random([3]));
        let run = |f: Normalising| {
            // The mean is far from zero, and some values exceed the upper limit of Relu6.
            let Normalised { maps, moments } = f(
                x.clone() * 3.0 + 20.0,
                gamma.clone() * 4.0,
                beta.clone(),
                1e-5,
                activation,
            );
            let grads = weighed(maps.clone()).backward();
            let by = [gamma.grad(&grads), beta.grad(&grads)].map(|g| g.expect("on the tape"));
            (
                [maps.inner(), x.grad(&grads).expect("on the tape")],
                by,
                moments.map(|m| m.inner()),
            )
        };
        let (ours, burns) = (run(B::normalise), run(backend::composed_normalise::<B>));
        let maps = ours.0.into_iter().zip(burns.0).map(|(a, b)| apart(a, b));
        let channels = ours
            .1
            .into_iter()
            .chain(ours.2)
            .zip(burns.1.into_iter().chain(burns.2))
            .map(|(a, b)| apart(a, b));
        let worst = maps.chain(channels).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{activation:?}: {worst}");
    }
}

#[test]
fn plane_operations_and_derivatives_equal_burns() {
    let (x, gates, weights) = (random([3, 5, 4, 7]), random([3, 5]), random([5, 28]));
    type Results = Vec<Tensor<Flex, 2>>;
    let run = |by: &dyn Fn(Tensor<B, 4>) -> Tensor<B, 2>, other: &Tensor<B, 2>| -> Results {
        let out = by(x.clone());
        let [rows, columns] = out.dims();
        let grads = weighed(out.clone().reshape([rows, columns, 1, 1])).backward();
        let by_x = x.grad(&grads).expect("on the tape").reshape([3, 140]);
        [Some(out.inner()), Some(by_x), other.grad(&grads)]
            .into_iter()
            .flatten()
            .collect()
    };
    let flat = |m: Tensor<B, 4>| m.reshape([3, 140]);
    let pairs: [(Results, Results); 3] = [
        (
            run(&|x| flat(B::gate(x, gates.clone())), &gates),
            run(&|x| flat(backend::composed_gate(x, gates.clone())), &gates),
        ),
        (
            run(&|x| B::plane_mean(x), &gates),
            run(&|x| backend::composed_plane_mean(x), &gates),
        ),
        (
            run(&|x| B::read_out(x, weights.clone()), &weights),
            run(
                &|x| backend::composed_read_out(x, weights.clone()),
                &weights,
            ),
        ),
    ];
    for (ours, burns) in pairs {
        assert_eq!(ours.len(), burns.len());
        assert!(ours.into_iter().zip(burns).all(|(a, b)| apart(a, b) < 1e-5));
    }
    let plain = Flex::gate(x.clone().inner(), gates.clone().inner());
    assert!(apart(plain, B::gate(x, gates).inner()) < 1e-6);
}

#[test]
fn scaling_equals_burns_and_untracked_inputs_get_no_derivative() {
    let (x, factor, offset) = (random([2, 3, 5, 4]), random([3]), random([3]));
    for activation in [Activation::Linear, Activation::Relu, Activation::Relu6] {
        let ours = Flex::scale(
            x.clone().inner(),
            factor.clone().inner(),
            offset.clone().inner(),
            activation,
        );
        let plain = backend::composed_scale(
            x.clone().inner(),
            factor.clone().inner(),
            offset.clone().inner(),
            activation,
        );
        assert!(apart(ours, plain) < 1e-6);
        let run = |f: Affine| {
            let grads = weighed(f(
                x.clone() * 4.0,
                factor.clone(),
                offset.clone(),
                activation,
            ))
            .backward();
            let by = [factor.grad(&grads), offset.grad(&grads)]
                .map(|g| g.expect("on the tape").reshape([1, 3, 1, 1]));
            [x.grad(&grads).expect("on the tape")].into_iter().chain(by)
        };
        assert!(
            run(B::scale)
                .zip(run(backend::composed_scale::<B>))
                .all(|(a, b)| apart(a, b) < 1e-4)
        );
    }
    let (crops, weight) = (
        Tensor::<B, 4>::ones([1, 3, 8, 8], &Default::default()),
        random([4, 3, 3, 3]),
    );
    let grads = weighed(B::convolve(
        crops.clone(),
        weight.clone(),
        Shape::full(3, 4, 1),
    ))
    .backward();
    assert!(crops.grad(&grads).is_none() && weight.grad(&grads).is_some());
}
