# ruff: noqa: F821
# Cells of lesson 09 that wait for the parts `segmentation`, `landmarks` and `pairs` of results/control.csv, which
# `python benchmarks/control.py --parts segmentation landmarks pairs` measures. They go in behind the cell "regions", in
# this order; what else changes then:
#
# - "kinds text": the sentence in brackets goes;
# - "title": the goal "measure regions with the mIoU, and say what goes into it" becomes "compare edges, segmentation
#   maps and landmarks, and the size of the training set", and `--parts ...` goes;
# - "cost text": its first paragraph moves to the top of "maps text";
# - "different": after "FID and CLIP score stand for quality" comes "Our KID is their FID's cousin that needs fewer
#   pictures"; the glossary gets "**KID**: a distance of two sets of pictures in a network's features; about 0 for sets
#   of one kind", the reading "Bińkowski, Sutherland, Arbel, Gretton: *Demystifying MMD GANs*, ICLR 2018,
#   [arXiv:1801.01401](https://arxiv.org/abs/1801.01401). The KID".

# %% maps text [markdown]
# ## Other trainings
#
# Now controls that were trained on the maps and on the landmarks themselves. Maps are scored as above, landmarks by the
# mean distance in pixels. KID and CLIP-T ask whether the pictures look like pictures of this world, and like their
# captions.
#
# After that: how many pairs does it need? Pairs of a picture and a good hint can be rare. The ControlNet paper compares
# trainings on 1,000 pictures and on up to 3,000,000 (figure 10): little data does not break the model, and more data
# helps. Here are 100, 1,000 and 10,000 pairs of a picture and its edges, with *the same number of steps*: of 100 pairs
# each is seen 40 times, of 10,000 less than half are seen at all.

# %% maps
TRIED = ("full", "OFT", "LoRA")


def of_part(part, method, measure, regime="none", column="value"):
    """One number a seed, of a control that was trained on other hints."""
    wanted = {"part": part, "method": method, "measure": measure, "regime": regime}
    found = [row for row in table if all(row[name] == value for name, value in wanted.items())]
    if not found:
        raise LookupError(f"results/control.csv lacks {wanted}: python benchmarks/control.py --parts {part}")
    return np.array([row[column] for row in sorted(found, key=lambda row: row["seed"])])


of_maps = {
    measure: {NAMES[method]: of_part("segmentation", method, measure) for method in TRIED}
    for measure in ("mIoU", "mAcc", "aAcc")
}
others = {"KID": ("segmentation", "none"), "CLIP-T": ("segmentation", "perfect"), "error": ("landmarks", "none")}
for measure, (part, regime) in others.items():
    told = ", ".join(
        "{} {:.3f} ± {:.3f}".format(NAMES[method], *results.mean_and_spread(of_part(part, method, measure, regime)))
        for method in TRIED
    )
    untold = of_part(part, "full", measure, regime, "start").mean()
    ceiling = of_part(part, "full", measure, regime, "ceiling")[0]
    print(f"{part:13} {measure:7} prompts {regime:8} {told}; no control {untold:.3f}, true pictures {ceiling:.3f}")
display(
    compared_plots.by_seed(
        of_maps,
        {measure: of_part("segmentation", "full", measure, column="start").mean() for measure in of_maps},
        "no control",
    )
)
seg, seg_error = difference(of_part("segmentation", "OFT", "mIoU"), of_part("segmentation", "full", "mIoU"))
face, face_error = difference(of_part("landmarks", "full", "error"), of_part("landmarks", "OFT", "error"))
each = [verdict(seg, seg_error), verdict(face, face_error)]
claim(
    "oft-better-on-maps-and-landmarks",
    "On segmentation maps and on landmarks OFT controls better than ControlNet.",
    paper="Qiu et al. 2023, OFT, table 2: mIoU 27.06 against 20.88 on ADE20K, landmark error 7.07 against 7.61 on "
    "CelebA-HQ",
    measured=f"without prompts, OFT's mIoU less ControlNet's is {seg:+.3f} ± {seg_error:.3f}; its landmark error is "
    f"smaller by {face:+.2f} ± {face_error:.2f} pixels",
    verdict="contradicted"
    if "contradicted" in each
    else "reproduced"
    if each == ["reproduced"] * 2
    else "not visible at this scale",
    seeds=SEEDS,
    results="results/control.csv",
)

# %% pairs
PAIRS = {100: "pairs", 1000: "edges", 10_000: "pairs"}


def by_pairs(measure, column="value"):
    """{pairs to learn from: one score a seed} of ControlNet on edges, without prompts."""
    wanted = {"method": "full", "measure": measure, "regime": "none"}
    found = {n: [row for row in table if (row["part"], row["pairs"]) == (part, n)] for n, part in PAIRS.items()}
    return {
        n: [
            row[column]
            for row in sorted(rows_of_n, key=lambda row: row["seed"])
            if all(row[name] == value for name, value in wanted.items())
        ]
        for n, rows_of_n in found.items()
    }


titles = {"edge F1, no prompt": "F1", "right things, no prompt": "things"}
display(
    compared_plots.sizes(
        {title: by_pairs(measure) for title, measure in titles.items()},
        {title: float(np.mean(by_pairs(measure, "start")[1000])) for title, measure in titles.items()},
    )
)
sizes = by_pairs("F1")
few_gain, few_error = difference(sizes[100], by_pairs("F1", "start")[100])
many_gain, many_error = difference(sizes[10_000], sizes[100])
each = [verdict(few_gain, few_error), verdict(many_gain, many_error)]
claim(
    "few-pairs-suffice-more-help",
    "A ControlNet learns from few pairs without collapsing, and from more pairs it learns more.",
    paper="Zhang et al. 2023, ControlNet, section 4.5 and figure 10",
    measured=f"edge F1 without prompts: 100 pairs bring {few_gain:+.3f} ± {few_error:.3f} over no control, 10,000 "
    f"instead of 100 bring {many_gain:+.3f} ± {many_error:.3f}",
    verdict="contradicted"
    if "contradicted" in each
    else "reproduced"
    if each == ["reproduced"] * 2
    else "not visible at this scale",
    seeds=SEEDS,
    results="results/control.csv",
)
