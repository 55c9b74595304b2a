"""Drug response: a drug on a cell line and a bulk profile, as the shared packages see them."""

from torchcell.core.task import Task
from torchcell.drug_response.foreign import FORMAT
from torchcell.drug_response.metrics import RESPONSE
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.drug_response.splits import SPLITS

TASK = Task("drug_response", spec=DrugResponseSpec, metrics=(RESPONSE,), splits=SPLITS, foreign=FORMAT)
