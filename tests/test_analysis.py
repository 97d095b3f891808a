"""``jali.analyze``: every number is that of the pure functions, JSON comes back whole, and gaps have words."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import jali
from jali.dynamics import Recurrence, site_spectrum
from jali.errors import DataError, FileError, ModelError
from jali.maths.information import gaussian, whiten
from jali.maths.modularity import modularity
from jali.maths.rate_distortion import gaussian_rate
from jali.maths.spectral import cheeger, expansion
from jali.report.analysis import analysis_section
from jali.surgery.mask import mask
from jali.view import read


class Tagger(nn.Module):
    def __init__(self, cls=nn.LSTM, **options):
        super().__init__()
        self.rnn = cls(3, 8, batch_first=True, **options)
        self.head = nn.Linear(8 * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Tagger()


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(40, 5, 3, generator=generator), torch.arange(40) % 4) for _ in range(2)]


def test_the_numbers_are_those_of_the_parts(model, data):
    plan = jali.plan(model, "magnitude", 0.5)
    before = copy.deepcopy(model.state_dict())
    found = jali.analyze(model, data, plan=plan)
    site, view = found.site("rnn.l0"), read(model, jali.sites(model)[0])
    assert site.size == 8
    spectrum = site_spectrum(Recurrence(view), data[0][0][:16].numpy()).mean
    np.testing.assert_allclose(site.dynamics["exponents"], spectrum, atol=1e-9)
    assert site.dynamics["largest exponent"] == site.dynamics["exponents"][0]
    assert site.dynamics["sampled sup |Df|"] <= site.dynamics["bound of sup |Df|"]
    assert site.dynamics["largest exponent"] <= np.log(site.dynamics["sampled sup |Df|"])
    assert site.modularity["Q"] == modularity(view.influence(), site.modularity["labels"])
    kept = plan.site("rnn.l0").kept
    own = view.influence()[np.ix_(kept, kept)]
    assert site.modularity["Q after"] == pytest.approx(modularity(own, site.modularity["labels after"]))
    old = np.array(site.modularity["labels"])[list(kept)]
    assert old.tolist() != site.modularity["labels"][: len(kept)], "the units that stay are not the first ones"
    assert site.modularity["Q of the old communities after"] == pytest.approx(modularity(own, old))
    with torch.no_grad():
        states = [torch.cat([m.rnn(x)[0] for x, _ in data]).reshape(-1, 8).double() for m in (model, mask(model, plan))]
    distortion = float((states[0] - states[1]).square().sum(1).mean())
    assert site.pruning["distortion"] == pytest.approx(distortion, rel=1e-5)
    variances = np.linalg.eigvalsh(np.cov(states[0].numpy().T))
    assert site.pruning["R(D), Gaussian bound"] == pytest.approx(gaussian_rate(variances, distortion).rate, rel=1e-4)
    assert {"I(X; h_T) ksg", "I(X; h_T) gaussian", "I(X; h_T) ksg after"} <= set(site.information)
    inputs, last = torch.cat([x for x, _ in data]).reshape(80, -1), states[0].reshape(80, 5, 8)[:, -1]
    value = gaussian(whiten(inputs.numpy(), 3).scores, whiten(last.numpy(), 3).scores).nats
    assert site.information["I(X; h_T) gaussian"] == pytest.approx(value, abs=1e-4)
    assert "3 principal components of 15 features" in site.information["X"]
    assert set(found.task) == {"I(Y; answer) discrete, Miller-Madow" + when for when in ("", " after")}
    assert site.notes[0] == "spectrum: the first 16 of 80 sequences, 5 of 5 steps"
    assert [note.split(":")[0] for note in site.notes[1:]] == ["largest exponent at tau"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_expansion_is_that_of_every_gate_before_and_after(model):
    plan = jali.plan(model, "magnitude", 0.8, granularity="weight")
    found = jali.analyze(model, plan=plan).site("rnn.l0").expansion
    for field, keep in plan.site("rnn.l0").keep.items():
        assert found[f"{field} density"] == [1.0] * 4
        assert found[f"{field} Δ_S"] == [np.inf] * 4
        masks = [expansion(gate) for gate in keep]
        assert found[f"{field} density after"] == [each.density for each in masks]
        for bound in "SR":
            assert found[f"{field} Δ_{bound} after"] == [each.delta(bound) for each in masks]
        assert found[f"{field} isolated after"] == [sum(each.isolated) for each in masks]
        assert found[f"{field} α2 after"] == [cheeger(gate).alpha2 for gate in keep]
    assert jali.Analysis.from_json(jali.analyze(model, plan=plan).to_json()).site("rnn.l0").expansion == found
    (table,) = (
        t for t in analysis_section(jali.analyze(model, plan=plan), "a").tables if t.title == "Expansion of the masks"
    )
    assert [row[:2] for row in table.rows] == [("rnn.l0", "w_in after"), ("rnn.l0", "w_rec after")]
    assert table.rows[1][2] == min(found["w_rec density after"])
    assert table.rows[1][-1] == sum(found["w_rec isolated after"])
    assert "Expansion of the masks" not in [t.title for t in analysis_section(jali.analyze(model), "a").tables]


def test_answers_that_are_the_targets_have_their_entropy(model, data):
    with torch.no_grad():
        right = [(x, model(x).argmax(-1)) for x, _ in data]
    counts = torch.bincount(torch.cat([y for _, y in right])).double()
    p = counts[counts > 0] / counts.sum()
    entropy = float(-(p * p.log()).sum()) + (len(p) - 1) / (2 * 80)
    assert jali.analyze(model, right).task["I(Y; answer) discrete, Miller-Madow"] == pytest.approx(entropy)


def test_real_targets(model, data):
    with torch.no_grad():
        near = [(x, model(x) + 0.01 * torch.randn(40, 4)) for x, _ in data]
        far = [(x, torch.randn(40, 4)) for x, _ in data]
    good, bad = (jali.analyze(model, part).task["I(Y; answer) ksg"] for part in (near, far))
    assert good > 1 > abs(bad)


@pytest.mark.parametrize(
    ("cls", "options"), [(nn.GRU, {}), (nn.RNN, {"nonlinearity": "relu"}), (nn.LSTM, {"proj_size": 3})]
)
def test_every_layer_and_direction_has_its_own_spectrum(cls, options):
    torch.manual_seed(0)
    layer = cls(3, 5, num_layers=2, bidirectional=True, batch_first=True, **options)
    x = torch.randn(4, 6, 3)
    found = jali.analyze(layer, x)
    assert [site.name for site in found.sites] == ["l0", "l0.reverse", "l1", "l1.reverse"]
    view = read(layer, jali.sites(layer)[1])  # the reverse direction steps through the input from its end
    own = Recurrence(view, getattr(layer, "nonlinearity", "tanh"))
    with np.errstate(invalid="ignore"):
        want = site_spectrum(own, x.flip(1).numpy()).mean
    np.testing.assert_allclose(found.site("l0.reverse").dynamics["exponents"], want, atol=1e-5)
    assert jali.Analysis.from_json(found.to_json()) == found  # also with infinite exponents
    assert any("4 sequences, 50 are wanted" in note for note in found.sites[0].notes)
    assert "nan" not in str(found)


def test_packed_sequences_and_given_states():
    torch.manual_seed(0)
    layer = nn.GRU(3, 5, batch_first=True)
    x, h = torch.randn(3, 6, 3), torch.randn(1, 3, 5)
    packed = pack_padded_sequence(x, torch.tensor([6, 2, 4]), batch_first=True, enforce_sorted=False)
    found = jali.analyze(layer, [((packed, h), None)]).site("l0").dynamics["exponents"]
    own = Recurrence(read(layer, jali.sites(layer)[0]))
    want = site_spectrum(own, x.numpy(), h[0].numpy(), [6, 2, 4]).mean
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_without_data_structure_is_left(model):
    found = jali.analyze(model)
    assert found.notes == ("without data nothing is said about dynamics and information",)
    assert found.sites[0].lattice
    assert not found.sites[0].dynamics
    assert not found.task


def test_a_cell_and_a_layer_without_recurrence_have_words():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = x.new_zeros(len(x), 4)
            for step in x.unbind(1):
                h = self.cell(step, h)
            return h

    found = jali.analyze(Loop(), torch.randn(2, 3, 3))
    assert found.sites[0].notes == ("dynamics and information were not measured: a cell is called step by step",)
    layer = nn.RNN(3, 4, batch_first=True)
    nn.init.zeros_(layer.weight_hh_l0)
    empty = jali.analyze(layer, torch.randn(2, 5, 3)).sites[0]
    assert empty.dynamics["exponents"] == [-np.inf] * 4
    assert empty.dynamics["theorem III.7"] == "holds"
    assert empty.modularity["Q"] == 0.0
    assert "no unit influences another: there is no lattice to speak of" in empty.notes
    assert any("4 of 4 exponents are -inf" in note for note in empty.notes)


def test_files(model, data, tmp_path):
    found = jali.analyze(model, data)
    found.save(tmp_path / "analysis.json")
    assert jali.Analysis.load(tmp_path / "analysis.json") == found
    assert found == jali.analyze(model, data)  # the same seed
    (tmp_path / "half.json").write_text(found.to_json()[:100])
    for path, message in (("half.json", "no analysis"), ("none.json", "cannot read the analysis")):
        with pytest.raises(FileError, match=message):
            jali.Analysis.load(tmp_path / path)
    with pytest.raises(FileError, match="schema 1"):
        jali.Analysis.from_json(found.to_json().replace('"schema": 1', '"schema": 2'))


def test_what_cannot_be_analysed_is_one_clear_error(model):
    with pytest.raises(ModelError, match="is a dict"):
        jali.analyze({})
    with pytest.raises(ModelError, match="no prunable site"):
        jali.analyze(nn.Linear(2, 2))
    with pytest.raises(DataError, match="cannot run on inputs"):
        jali.analyze(model, torch.randn(2, 5, 9))
