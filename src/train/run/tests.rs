//! Training runs of a few steps.

use super::*;
use crate::train::config::LossKind;
use crate::train::embed::embed;
use crate::train::rng_lock::RNG_LOCK;

#[test]
fn a_loss_that_is_not_finite_names_checkpoint_and_likely_cause() {
    let config = TrainConfig::default();
    let losses = |v: &[f32]| check_finite(v, 6, &config, Path::new("work"));
    assert!(losses(&[0.5, 0.25]).is_ok());
    let e = losses(&[0.5, f32::NAN, f32::NAN])
        .expect_err("no number")
        .to_string();
    assert!(
        e.contains("NaN at step 7") && e.contains("last.mpk") && e.contains("learning rate"),
        "{e}"
    );
    assert!(losses(&[f32::INFINITY]).is_err());
}

/// Four steps give the same network as two steps, a checkpoint and two more steps. The learning
/// rate is in its warm-up, and so does not depend on the total number of steps.
#[test]
fn resuming_from_a_checkpoint_is_exact() {
    use crate::train::synthetic;
    use burn::backend::{Autodiff, Flex};
    let _alone = RNG_LOCK.lock().expect("no test failed while it drew");
    let dirs = ["whole", "parts"]
        .map(|n| std::env::temp_dir().join(format!("twintrack-train-{}-{n}", std::process::id())));
    let config = TrainConfig {
        dimension: 16,
        steps: 4,
        people: 2,
        views: 2,
        validate_every: 2,
        warmup: 100,
        classification: 0.5,
        ..TrainConfig::default()
    };
    let device = Default::default();
    let sets = || vec![synthetic::dataset(4, 3, 1).expect("people")];
    let run = |config: &TrainConfig, dir: &Path, resume| {
        train::<Autodiff<Flex>>(
            config,
            TrainingData {
                train: sets(),
                ..TrainingData::default()
            },
            dir,
            resume,
            &device,
            |_| {},
        )
    };
    let look = |t: &TrainedNetwork<Autodiff<Flex>>| {
        embed(
            &t.tower,
            &sets()[0].crops.iter().collect::<Vec<_>>(),
            &device,
        )
    };
    let whole = run(&config, &dirs[0], false).expect("trained");
    run(
        &TrainConfig {
            steps: 2,
            ..config.clone()
        },
        &dirs[1],
        false,
    )
    .expect("trained");
    let other = run(
        &TrainConfig {
            dimension: 32,
            ..config.clone()
        },
        &dirs[1],
        true,
    )
    .err()
    .expect("another network");
    assert!(other.to_string().contains("dimension 16"), "{other}");
    let on = run(&config, &dirs[1], true).expect("went on");
    assert_eq!(
        on.curve.0.iter().map(|p| p.step).collect::<Vec<_>>(),
        [2, 4]
    );
    let worst = (look(&whole) - look(&on))
        .iter()
        .fold(0.0f32, |w, d| w.max(d.abs()));
    assert!(worst < 1e-5, "the embeddings differ by {worst}");
    for dir in dirs {
        std::fs::remove_dir_all(dir).expect("our own folder");
    }
}

/// With bfloat16 three networks give nearly the same embeddings as with float32, and the loss of
/// `tiny` decreases about equally.
#[test]
fn mixed_precision_trains_like_float32() {
    use crate::train::body::Network;
    use crate::train::config::TrainPrecision;
    use crate::train::optimiser::AdamW;
    use crate::train::synthetic;
    use burn::backend::{Autodiff, Flex};
    use burn::optim::GradientsParams;
    use burn::tensor::backend::Backend as _;
    type B = Autodiff<Flex>;
    let _alone = RNG_LOCK.lock().expect("no test failed while it drew");
    let device = Default::default();
    B::seed(&device, 1);
    let design = TrainConfig {
        dimension: 16,
        ..TrainConfig::default()
    }
    .design();
    let sampler = Sampler::new(
        vec![synthetic::dataset(8, 3, 1).expect("people")],
        (8, 3),
        design,
        Default::default(),
        1,
    )
    .expect("enough");
    let start = stacked(plain(&sampler.plain(24), (128, 64)).map(|batch| colour::layouts(&batch)));
    let precisions = [TrainPrecision::Float32, TrainPrecision::Bfloat16];
    for network in [Network::Tiny, Network::Mobile, Network::Omni] {
        let config = |precision| TrainConfig {
            network,
            precision,
            dimension: 16,
            loss: LossKind::Contrastive,
            margin: 1.0,
            ..TrainConfig::default()
        };
        let mut learner =
            Learner::<B>::new(&config(TrainPrecision::Float32), &start, 0, None, &device)
                .expect("a tower");
        // The head is initialised with zero; with random weights the convolutional network has an
        // effect from the first step.
        learner.tower.randomise_head(&device);
        let batch = sampler.batch(0);
        let [full, half] = precisions.map(|p| {
            let x = learner
                .embed(batch.inputs.clone(), &config(p), &device)
                .embeddings;
            x.into_data()
                .to_vec::<f32>()
                .expect("embeddings are float32")
        });
        let alike = full
            .chunks(16)
            .zip(half.chunks(16))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
            .sum::<f32>()
            / 24.0;
        // Each normalisation of an untrained network amplifies the small differences between
        // pictures, and rounding errors with them. After the fifty normalisations of `mobile` the
        // cosine is still above 0.85.
        assert!(
            alike > if network == Network::Tiny { 0.999 } else { 0.7 } && full != half,
            "{network:?}: {alike}"
        );
        if network == Network::Tiny {
            let learnt = precisions.map(|p| {
                let (mut learner, mut optimizer) =
                    (learner.clone(), AdamW::<B>::new(1e-4, 0.0, false));
                let losses: Vec<f32> = (0..12)
                    .map(|_| {
                        let (value, _) =
                            learner.labelled_loss(batch.clone(), &config(p), 0, &device);
                        let loss: f32 = value.clone().into_scalar();
                        let gradients = GradientsParams::from_grads(value.backward(), &learner);
                        learner = optimizer.step(1e-3, learner.clone(), gradients);
                        loss
                    })
                    .collect();
                losses[11] / losses[0]
            });
            assert!(
                learnt.iter().all(|l| *l < 0.5) && (learnt[0] - learnt[1]).abs() < 0.1,
                "{learnt:?}"
            );
        }
    }
}

/// With the hardest triplets all embeddings of `omni` become equal: strangers ended closer than
/// 0.02, where the loss is the margin and small changes of the weights do not lower it. The neck
/// prevents this.
#[test]
fn the_neck_keeps_the_embeddings_of_strangers_apart() {
    use crate::train::body::Network;
    use crate::train::synthetic;
    use burn::backend::{Autodiff, Flex};
    let _alone = RNG_LOCK.lock().expect("no test failed while it drew");
    let (dir, device) = (tempfile::tempdir().expect("a folder"), Default::default());
    let people = || synthetic::dataset(12, 2, 1).expect("people");
    // Mean cosine distance between pictures of different people.
    let apart = |neck: bool| {
        let config = TrainConfig {
            network: Network::Omni,
            colours: false,
            neck,
            dimension: 32,
            steps: 80,
            people: 4,
            views: 2,
            warmup: 5,
            easy_steps: 0,
            validate_every: 80,
            learning_rate: 1e-3,
            ..TrainConfig::default()
        };
        let data = TrainingData {
            train: vec![people()],
            ..TrainingData::default()
        };
        let work = dir.path().join(format!("{neck}"));
        let trained = train::<Autodiff<Flex>>(&config, data, &work, false, &device, |_| {});
        let set = people();
        let crops: Vec<_> = set.crops.iter().collect();
        let e = embed(&trained.expect("trained").tower, &crops, &device);
        let pairs = (0..crops.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let strangers = pairs.filter(|&(i, j)| crops[i].identity != crops[j].identity);
        let distances: Vec<f32> = strangers
            .map(|(i, j)| 1.0 - e.row(i).dot(&e.row(j)))
            .collect();
        distances.iter().sum::<f32>() / distances.len() as f32
    };
    let (plain, necked) = (apart(false), apart(true));
    assert!(plain < 0.05, "{plain} without the neck, {necked} with it");
    assert!(necked > 0.3, "{necked} with the neck");
}
