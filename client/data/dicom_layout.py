"""Cases out of a folder of DICOM: which volumes belong together, and which segmentation belongs to which volume."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from client.data.dicom.objects import Item, Scan
from client.data.gate.codes import finding
from client.data.volume import Case, Finding, Stack
from client.site import SeriesRule
from common.registry import did_you_mean

# The rule in `series:` that says which of several segmentations counts.
LABEL = "label"

_KINDS = {"seg": "SEG", "rtstruct": "RTSTRUCT"}


def dicom_cases(scan: Scan, rules: Mapping[str, SeriesRule], names: Sequence[str]) -> tuple[list[Case], list[Finding]]:
    """The cases in a folder of DICOM, and why volumes or segmentations are not among them.

    With one channel, a case is a volume that fits the channel's rule and to which a segmentation refers; where none of
    an examination's has one, each that fits is a case without annotation. With several channels a case is an
    examination in which each channel's rule fits one volume. A segmentation belongs to the volume that holds the most
    of the images to which it refers. Where several segmentations refer to one volume, the rule `label` chooses. What
    the rules leave out although it is annotated is a finding.

    Args:
        scan: What lies in the folder.
        rules: The site's `series`.
        names: The study's channels.
    """
    findings: list[Finding] = []
    scan = scan._replace(stacks=_of_one_patient(scan.stacks, findings))
    labels = _labels_by_stack(scan, rules.get(LABEL), findings)
    cases: list[Case] = []
    if names:
        findings += [_unknown_rule(rule, names) for rule in rules if rule not in (*names, LABEL)]
    for examination in _examinations(scan.stacks).values():
        if len(names) > 1:
            cases += _of_channels(examination, rules, names, labels, findings)
        else:
            cases += _of_volumes(examination, rules.get(names[0]) if names else None, labels, names, findings)
    return cases, findings


def fits(stack: Stack | Item, rule: SeriesRule | None) -> bool:
    """Whether all that `rule` says is true of a volume or a segmentation; without a rule everything fits."""
    if rule is None:
        return True
    said = (
        (rule.modality, stack.modality),
        (rule.description, stack.description),
        (rule.volume, stack.name if isinstance(stack, Stack) else ""),
    )
    return all(pattern is None or _like(text.casefold(), pattern.casefold()) for pattern, text in said)


def _like(text: str, pattern: str) -> bool:
    """Also a text that is the pattern letter for letter, as brackets mean something in patterns."""
    return text == pattern or fnmatchcase(text, pattern)


def _examinations(stacks: Sequence[Stack]) -> dict[tuple[str, str], list[Stack]]:
    groups: dict[tuple[str, str], list[Stack]] = defaultdict(list)
    for stack in stacks:
        groups[stack.patient, stack.study].append(stack)
    return groups


def _of_one_patient(stacks: Sequence[Stack], findings: list[Finding]) -> tuple[Stack, ...]:
    """The volumes whose series has one patient: where it has several, whose slices and labels are whose is unknown."""
    patients: dict[str, set[str]] = defaultdict(set)
    for stack in stacks:
        patients[stack.series].add(stack.patient)
    for series, whose in patients.items():
        if len(whose) > 1:
            first = next(stack for stack in stacks if stack.series == series)
            what = f"{first.files[0].parent}: {len(whose)} patients in one series"
            findings.append(finding("dicom-several-patients", first.id, what))
    return tuple(stack for stack in stacks if len(patients[stack.series]) == 1)


def _of_volumes(stacks: Sequence[Stack], rule: SeriesRule | None, labels: Mapping[str, Sequence[Item]],
                names: Sequence[str], findings: list[Finding]) -> Iterator[Case]:  # fmt: skip
    chosen = [stack for stack in stacks if fits(stack, rule)]
    annotated = any(labels.get(stack.id) for stack in chosen)
    for stack in stacks:
        if labels.get(stack.id) and not annotated:
            what = f"{stack}: has a segmentation, and does not fit the rule of the channel {names[0]}"
            findings.append(finding("dicom-not-chosen", stack.id, what))
    for stack in chosen:
        own = labels.get(stack.id, ())
        if own or not annotated:
            case = Case(stack.id, stack.patient, (stack,), None)
            yield from _with_label(case, own, findings)


def _of_channels(stacks: Sequence[Stack], rules: Mapping[str, SeriesRule], names: Sequence[str],
                 labels: Mapping[str, Sequence[Item]], findings: list[Finding]) -> Iterator[Case]:  # fmt: skip
    chosen = []
    for name in names:
        rule = rules.get(name)
        found = [stack for stack in stacks if rule is not None and fits(stack, rule)]
        if len(found) != 1:
            findings.append(_not_one(stacks[0], name, rule, found))
            return
        chosen.append(found[0])
    own = list(dict.fromkeys(item for stack in chosen for item in labels.get(stack.id, ())))
    yield from _with_label(Case(chosen[0].id, chosen[0].patient, tuple(chosen), None), own, findings)


def _with_label(case: Case, items: Sequence[Item], findings: list[Finding]) -> Iterator[Case]:
    if len(items) <= 1:
        yield Case(case.id, case.patient, case.images, items[0].file if items else None)
        return
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(_KINDS[item.kind] for item in items).items())
    what = f"{case.images[0]}: {len(items)} segmentations refer to it ({kinds})"
    findings.append(finding("dicom-several-labels", case.id, what))


def _not_one(stack: Stack, name: str, rule: SeriesRule | None, found: Sequence[Stack]) -> Finding:
    where = stack.files[0].parent
    if rule is None:
        return finding("dicom-channel", "", f"{where}: no rule says which series is {name}")
    return finding("dicom-channel", "", f"{where}: {len(found)} volumes fit the rule of the channel {name}, not one")


def _labels_by_stack(scan: Scan, rule: SeriesRule | None, findings: list[Finding]) -> dict[str, list[Item]]:
    by_series: dict[str, list[Stack]] = defaultdict(list)
    by_instance: dict[str, list[Stack]] = defaultdict(list)
    for stack in scan.stacks:
        by_series[stack.series].append(stack)
        for instance in set(stack.instances):
            by_instance[instance].append(stack)
    labels: dict[str, list[Item]] = defaultdict(list)
    unfit: dict[Stack, int] = defaultdict(int)
    for item in scan.items:
        if item.kind not in _KINDS:
            continue
        own = _stack_of(item, by_series, by_instance)
        if fits(item, rule):
            if own is None:
                findings.append(_no_image(item))
            else:
                labels[own.id].append(item)
        elif own is not None:
            unfit[own] += 1
    for stack, number in unfit.items():
        if stack.id not in labels:
            what = f"{stack}: {number} segmentation(s), of which the rule `{LABEL}` fits none"
            findings.append(finding("dicom-label-rule", stack.id, what))
    return labels


def _stack_of(item: Item, by_series: Mapping[str, Sequence[Stack]], by_instance: Mapping[str, Sequence[Stack]]
              ) -> Stack | None:  # fmt: skip
    """The volume that holds most of what `item` refers to; the first of those that hold equally much."""
    held: Counter[str] = Counter()
    stacks: dict[str, Stack] = {}
    for instance in set(item.referenced_instances):
        for stack in by_instance.get(instance, ()):
            held[stack.id] += 1
            stacks[stack.id] = stack
    if not held:
        candidates = [stack for series in item.referenced_series for stack in by_series.get(series, ())]
        return candidates[0] if len(candidates) == 1 else None
    most = max(held.values())
    # Ties are broken by the order of the scan, which does not depend on file names.
    return stacks[min((id_ for id_, number in held.items() if number == most))]


def _unknown_rule(rule: str, names: Sequence[str]) -> Finding:
    what = f"`series` has a rule for {rule}; the study's channels are {', '.join(names)}.{did_you_mean(rule, names)}"
    return finding("dicom-unknown-rule", "", what)


def _no_image(item: Item) -> Finding:
    return finding("dicom-no-image", "", f"{item.file}: refers to images that are not here, or to several volumes")
