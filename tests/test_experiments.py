"""What is shown of experiments: DVC's table, with short names."""

from pipeline.core import layout
from pipeline.experiments import shorten


def test_key_metrics_are_named_by_their_locale_and_rows_by_experiment_or_revision() -> None:
    names = [f"{layout.key_metrics(locale)}:dense.ndcg@10" for locale in ("es", "pt-br")]
    header = ",".join(["Experiment", "rev", "typ", "Created", "parent", *names, "encoder.es"])
    csv = (
        f"{header}\n,workspace,baseline,,,0.6,0.5,minilm\n"
        'mine,3bcba2b,branch_base,2026-01-02,,0.41018,,"a, b"\n'
    )
    assert shorten(csv).splitlines() == [
        "Experiment  Created     es.dense.ndcg@10  pt-br.dense.ndcg@10  encoder.es",
        "workspace               0.6               0.5                  minilm",
        "mine        2026-01-02  0.41018                                a, b",
    ]
    assert shorten("rev,Created\nworkspace,\n") == "rev        Created\nworkspace\n"
