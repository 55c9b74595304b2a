from __future__ import annotations

import numpy as np
import pytest
from hydra.utils import instantiate

from tests.drug_response.small_drugs import drugs
from torchcell.drug_response.molecules import Annotation
from torchcell.drug_response.sources import l1000_level5
from torchcell.io.errors import InputError

MOA = {
    "acid": "X inhibitor|Y agonist",
    "alcohol": "X inhibitor",
    "benzene": "Y agonist",
    "phenol": "rare",
    "toluene": "",
    "blank": "",
}
TARGETS = {"acid": "T1", "alcohol": "T1 | T2", "benzene": "T2", "phenol": "T3", "toluene": "", "blank": "T9"}


def annotated(**changes):
    record = drugs()
    columns = {"moa": np.array([MOA[d] for d in record.drug]), "targets": np.array([TARGETS[d] for d in record.drug])}
    return drugs(columns=columns | changes)


def test_terms_that_drugs_share_are_columns_and_a_drug_without_any_has_no_vector():
    made = Annotation()(annotated())
    assert made.features["vocabulary"] == ["moa:X inhibitor", "moa:Y agonist", "targets:T1", "targets:T2"]
    assert dict(zip(made.id.tolist(), made.vectors.tolist(), strict=True)) == {
        "acid": [1, 1, 1, 0], "alcohol": [1, 0, 1, 1], "benzene": [0, 1, 0, 1],
        "blank": [0, 0, 0, 0], "phenol": [0, 0, 0, 0], "toluene": [0, 0, 0, 0],
    }  # fmt: skip
    assert made.known.tolist() == [True, True, True, False, False, False]


def test_features_of_a_trained_model_keep_its_columns():
    made = Annotation(least=1)(annotated())
    few = annotated().subset(np.flatnonzero(annotated().drug == "phenol"))
    again = instantiate(made.features)(few)
    np.testing.assert_array_equal(again.vectors, made.vectors[made.id == "phenol"])


def test_missing_columns_and_terms_are_errors():
    with pytest.raises(InputError, match=r"no column 'target'; the nearest are \['targets'\]"):
        Annotation(columns=["target"])(annotated())
    with pytest.raises(InputError, match="no term of 'moa' is shared by 9 drugs"):
        Annotation(columns=["moa"], least=9)(annotated())


@pytest.mark.mirror
def test_level_5_has_annotations_for_827_compounds(mirror):
    record = l1000_level5()
    made = Annotation(least=1)(record)
    assert len(made) == len(np.unique(record.drug))
    assert made.known.sum() in range(815, 828)  # of all 24 lines 827; some lines have no basal profile
