"""The job that certifies a model by randomised smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfrobust.jobs.images import sample
from tfrobust.jobs.opening import Subject, as_subject
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    from tfrobust.cluster import Ray
    from tfrobust.radii.certificates import Certificates
    from tfrobust.run import RunFolder


@dataclass(frozen=True)
class CertifyResult:
    """The certificates, and their files.

    Attributes:
      run: the folder whose `certificates/` has one folder for each sigma.
      certificates: image by image.
      files: certificates.json, certificates.csv and certified_accuracy.png.
    """

    run: RunFolder
    certificates: Certificates
    files: tuple[Path, ...]


def certify(
    subject: Subject | Path | str,
    sigma: float,
    *,
    samples: int = 10_000,
    selection: int = 100,
    alpha: float = 0.001,
    batch_size: int = 500,
    resume: bool = False,
    on: str | Ray | None = None,
    tell: Tell = silent,
) -> CertifyResult:
    """Certifies the test images of a run or model, or a sample of them.

    Args:
      subject: from `open_subject`; or a run folder.
      sigma: standard deviation of the noise, in pixels of [0, 1].
      samples: noisy images for each estimate.
      selection: noisy images that choose the class.
      alpha: the chance, for each image, that its certificate is wrong.
      batch_size: noisy images in a batch.
      resume: go on with a certification of the same model, images and settings that was killed.
      on: spread the images over a Ray cluster: 'ray', 'ray://HOST:PORT', or a `cluster.Ray`.
      tell: takes the table.

    Raises:
      UsageError: a setting is out of range, or a cluster without Ray installed.
      TFRobustError: the model does not take the images, or the disk is full.
    """
    from tfrobust.radii.certify import certify as certified

    subject = as_subject(subject, tell)
    data = sample(subject.test, subject.config.evaluation.limit, subject.config.seed)
    folder = subject.run.path / "certificates" / f"sigma_{sigma:g}"
    kept = folder / "progress.npz"
    if not resume:
        kept.unlink(missing_ok=True)
    found = certified(
        subject.model,
        data,
        sigma,
        samples=samples,
        selection=selection,
        alpha=alpha,
        batch_size=batch_size,
        seed=subject.config.seed,
        name=subject.name,
        resume_from=kept,
        on=on,
    )
    files = tuple(found.save(folder))
    tell(f"\n{found}\nCertificates: {', '.join(file.name for file in files)} in {folder}")
    return CertifyResult(subject.run, found, files)
