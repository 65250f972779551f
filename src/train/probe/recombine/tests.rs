use super::*;

fn sources(bare: bool) -> FigureSources {
    let size = (32, 64);
    let picture = Picture::from_fn(size, |x, y| [x, y, 0.3]);
    let coverage = Mask::from_fn(size, |x, _| f32::from(u8::from((x - 0.5).abs() < 0.25)));
    let parts = bare.then(|| parts_by_height(size, &mut Rng::with_seed(1)));
    FigureSources {
        figures: vec![vec![Figure::new(&picture, &coverage, parts)]],
        scenes: Vec::new(),
        size,
    }
}

#[test]
fn people_differ_and_are_deterministic() {
    for bare in [false, true] {
        let sources = sources(bare);
        let make = |seed| sources.person(&mut Rng::with_seed(seed));
        let people: Vec<Picture> = (0..12).map(make).collect();
        assert_eq!(people[3], make(3));
        for (i, p) in people.iter().enumerate() {
            assert!(p.values.iter().flatten().all(|v| (0.0..=1.0).contains(v)));
            assert!(people[..i].iter().all(|other| other != p));
        }
    }
}

#[test]
fn cloth_covers_its_part_only() {
    let sources = sources(false);
    let mut rng = Rng::with_seed(2);
    let mut body = sources.body(&mut rng);
    let before = body.picture.clone();
    let mut painter = ClothPainter {
        original: before.clone(),
        body: &mut body,
        strength: 0.0,
        weave: None,
    };
    painter.put(
        &[BodyPart::Shoes],
        &plain((32, 64), [1.0, 0.0, 0.0]),
        |_, _| true,
    );
    assert_eq!(body.picture.at(16, 10), before.at(16, 10));
    let shoe = body.picture.at(16, 63);
    assert!(shoe[0] > 0.9 && shoe[1] < 0.1, "{shoe:?}");
    assert_eq!(
        body.picture.at(1, 63),
        before.at(1, 63),
        "outside the person"
    );
}
