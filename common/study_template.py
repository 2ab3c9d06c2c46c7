"""The commented study file that `fedscan study new` writes."""

from collections.abc import Sequence

_TEXT = """\
# A study for fedscan: what is learnt and how, the same at every hospital. Data, never code.
# `fedscan study check FILE` finds mistakes; `fedscan study explain FILE` says what will run and what leaves a hospital.
name: {name}
description: ""                 # a sentence for the people who are asked to take part
author: ""                      # who wrote it (user name or address): may not approve it at a site
seed: 1                         # split of the patients, first weights, patches, augmentation

data:
  dimensions: {dimensions}                 # 3: volumes (CT, MR), 2: pictures (X-ray, photographs)
  channels: [{channels}]
  labels: [{labels}]{pad}# structures to segment; in the masks 1 is the first, 2 the second ...
  bad_cases: exclude            # or refuse: a site with a bad case does not take part
  # ignore: 255                 # value of voxels that nobody labelled: they teach nothing and are not judged

plan:                           # how every scan becomes an array
{plan}
  intensity: {{method: zscore}}   # MR, X-ray; for CT: {{method: window, low: -1000, high: 400}}

net: {{name: dynunet, size: small}}   # small: a CPU will do; medium: any GPU; large: a GPU with 8 GB or more
loss: dice_ce
# start: {{file: ..., sha256: ...}}   # begin with a finished model; `fedscan study start MODEL` gives the lines

training:                       # what a site does in one round
  optimizer: adamw              # or sgd
  rate: 0.001
  batch: {batch}
  steps: 50                     # or epochs: 1

strategy: fedavg                # or {{name: fedprox, mu: 0.01}}, which holds unlike hospitals together
update: full                    # or int8: what a hospital sends back in a quarter of the bytes

rounds:
  number: 20
  weights: cases                # a site counts by its training cases; or equal, or patches
  quorum: 0.5                   # share of the sites that must answer for a round to count

evaluation:
  validation: 0.2               # of each site's patients: the best round is chosen on them
  test: 0.2                     # of each site's patients: looked at once, at the end
  every: 2                      # validate after every so many rounds

postprocess: []                 # e.g. [largest_component, {{name: remove_small, volume: 30}}]

# To try the study on one machine before any hospital is asked, say where scans lie and run
# `fedscan simulate FILE`. This part is for simulations only and is not part of the study's digest:
# sites:
#   hospital-a: {{data: folder-of-a}}
#   hospital-b: {{data: folder-of-b}}
"""

_PLANS = {
    3: "  spacing: [1.0, 1.0, 1.0]      # mm; scans are resampled to it\n"
       "  patch: [64, 64, 64]           # voxels that the net sees at once",
    2: "  size: [256, 256]              # pixels; pictures are resized to it\n"
       "  patch: [256, 256]             # pixels that the net sees at once",
}  # fmt: skip


def study_text(name: str, dimensions: int, channels: Sequence[str], labels: Sequence[str]) -> str:
    """A valid study with a remark at every key that a newcomer will want to change."""
    listed = ", ".join(labels)
    return _TEXT.format(
        name=name,
        dimensions=dimensions,
        channels=", ".join(channels),
        labels=listed,
        pad=" " * max(1, 20 - len(listed)),
        plan=_PLANS[dimensions],
        batch=2 if dimensions == 3 else 8,
    )
