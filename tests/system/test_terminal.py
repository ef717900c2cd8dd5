"""Results go to the standard output, remarks and progress to the standard error."""

from pixel_rnn_jax.system import terminal


def test_results_and_remarks(capsys):
    terminal.print_result("80.690 ± 0.779 nats")
    terminal.log("a remark")
    assert list(terminal.progress(iter("abc"), 3, "drawing", "batches")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("80.690 ± 0.779 nats\n", "a remark\n")


def test_plural():
    assert terminal.plural(1, "image") == "1 image"
    assert terminal.plural(60_000, "image") == "60,000 images"
