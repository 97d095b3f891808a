"""Accuracy and Ramanujan bounds of an LSTM on spoken words in 400 steps: Figures 3c, 3d and Table 2."""

from __future__ import annotations

from dataclasses import replace

from jali.studies.expander_mnist import ExpanderStudy
from jali.studies.expander_runs import ExpanderRecipe

# At the paper's crossing and far below it; 1 trains on without a cut, to tell the training from the cut.
FULL = ExpanderRecipe("speech-commands-400", "LSTM", remaining=(1.0, 0.35, 0.1), widths=(), noise=(0.0,))
QUICK = replace(FULL, epochs=(4, 2), remaining=(0.35,))
PAPER = {("W_xh", "S"): 0.5, ("W_xh", "R"): 0.35, ("W_hh", "S"): 0.35, ("W_hh", "R"): 0.35}


class ExpanderSpeech(ExpanderStudy):
    name = "expander-speech"
    title = "Ramanujan bounds and accuracy: an LSTM on spoken words in 400 steps"
    full, quick = FULL, QUICK
    known = PAPER


STUDY = ExpanderSpeech()
