"""The tree of errors: each leaf has a stable ID, an exit code, and a hint.

    AgentError                         1   defect
    ├── UsageError                     2   usage
    ├── OutputUnwritable              41   output-unwritable
    ├── OpsManagerError                    (base: the API)
    │   ├── AccessRefused             30   api-access-refused
    │   ├── NotFound                  24   not-found
    │   ├── RedirectRefused           32   api-redirect
    │   ├── RequestRefused            32   api-request-refused
    │   ├── CreationUnconfirmed       32   creation-unconfirmed
    │   ├── NoSnapshot                24   no-snapshot
    │   ├── SnapshotNotRestorable     24   snapshot-not-restorable
    │   └── TransientApiError         32   (base: another poll may succeed)
    │       ├── Unreachable           32   ops-manager-unreachable
    │       └── AnswerUnusable        32   api-answer-unusable
    ├── TlsError                      31   tls
    ├── BatchError                    24   (base: the restore jobs)
    │   ├── NothingListed             24   batch-empty
    │   ├── FewerJobs                 24   fewer-jobs-than-expected
    │   ├── NothingSelected           24   nothing-selected
    │   └── NothingDelivered          24   no-http-delivery
    ├── ArchiveError                       (base: one archive)
    │   ├── NotReady                  20   not-ready
    │   ├── JobFailed                 21   (base: the job or its delivery failed)
    │   │   ├── JobBroken             21   job-broken
    │   │   ├── JobKilled             21   job-killed
    │   │   ├── DeliveryFailed        21   delivery-failed
    │   │   └── DeliveryInterrupted   21   delivery-interrupted
    │   ├── Expired                   22   delivery-expired
    │   ├── DownloadsUsedUp           23   downloads-used-up
    │   ├── DeliveryUrlUnusable       25   delivery-url-unusable
    │   ├── HashUnpublished           10   hash-not-published
    │   ├── HashMismatch              11   hash-mismatch
    │   ├── Damaged                   11   archive-damaged
    │   ├── AttemptFailed             25   (base: another attempt may succeed)
    │   │   ├── ConnectFailed         25   delivery-unreachable
    │   │   ├── DeliveryRefused       25   delivery-refused
    │   │   ├── NotAnArchive          25   not-an-archive
    │   │   ├── ResumeRefused         25   resume-refused
    │   │   └── TransferCut           25   transfer-cut
    │   └── NotUnpacked               13   (base: the data path)
    │       ├── NoSpaceToUnpack       13   no-space-to-unpack
    │       ├── CannotUnpack          13   cannot-unpack
    │       ├── UnsafeArchive         13   unsafe-archive
    │       ├── DamagedArchive        13   damaged-archive
    │       ├── DataPathInTheWay      13   data-path-in-the-way
    │       ├── ArchiveDiscarded      13   archive-discarded
    │       └── UnpackCancelled       13   unpack-cancelled
    ├── DestError                          (base: DEST)
    │   ├── NoSpace                   40   no-space
    │   ├── Unwritable                41   dest-unwritable
    │   ├── ResourcesExhausted        41   no-resources
    │   ├── InTheWay                  42   in-the-way
    │   │   ├── ForeignFile           42   foreign-file
    │   │   ├── OtherBatch            42   other-batch
    │   │   ├── RecordUnreadable      42   record-unreadable
    │   │   ├── ArchiveMissing        42   archive-missing
    │   │   └── NoRestoreHere         42   no-restore
    │   └── DestHeld                  50   dest-held
    └── Stopped             129, 130, 143  stopped

`core/exit_codes.py` has the table of exit codes.
"""

from .archive import (
    ArchiveDiscarded,
    ArchiveError,
    AttemptFailed,
    CannotUnpack,
    ConnectFailed,
    Damaged,
    DamagedArchive,
    DataPathInTheWay,
    DeliveryFailed,
    DeliveryInterrupted,
    DeliveryRefused,
    DeliveryUrlUnusable,
    DownloadsUsedUp,
    Expired,
    Finding,
    HashMismatch,
    HashUnpublished,
    JobBroken,
    JobFailed,
    JobKilled,
    NoSpaceToUnpack,
    NotAnArchive,
    NotReady,
    NotUnpacked,
    ResumeRefused,
    TransferCut,
    UnpackCancelled,
    UnsafeArchive,
)
from .base import AgentError, OutputUnwritable, Stopped, UsageError
from .dest import (
    ArchiveMissing,
    DestError,
    DestHeld,
    ForeignFile,
    InTheWay,
    NoRestoreHere,
    NoSpace,
    OtherBatch,
    RecordUnreadable,
    ResourcesExhausted,
    Unwritable,
)
from .ops_manager import (
    AccessRefused,
    AnswerUnusable,
    BatchError,
    CreationUnconfirmed,
    FewerJobs,
    NoSnapshot,
    NotFound,
    NothingDelivered,
    NothingListed,
    NothingSelected,
    OpsManagerError,
    RedirectRefused,
    RequestRefused,
    SnapshotNotRestorable,
    TlsError,
    TransientApiError,
    Unreachable,
)

__all__ = [
    "AccessRefused",
    "AgentError",
    "AnswerUnusable",
    "ArchiveDiscarded",
    "ArchiveError",
    "ArchiveMissing",
    "AttemptFailed",
    "BatchError",
    "CannotUnpack",
    "ConnectFailed",
    "CreationUnconfirmed",
    "Damaged",
    "DamagedArchive",
    "DataPathInTheWay",
    "DeliveryFailed",
    "DeliveryInterrupted",
    "DeliveryRefused",
    "DeliveryUrlUnusable",
    "DestError",
    "DestHeld",
    "DownloadsUsedUp",
    "Expired",
    "FewerJobs",
    "Finding",
    "ForeignFile",
    "HashMismatch",
    "HashUnpublished",
    "InTheWay",
    "JobBroken",
    "JobFailed",
    "JobKilled",
    "NoRestoreHere",
    "NoSnapshot",
    "NoSpace",
    "NoSpaceToUnpack",
    "NotAnArchive",
    "NotFound",
    "NotReady",
    "NotUnpacked",
    "NothingDelivered",
    "NothingListed",
    "NothingSelected",
    "OpsManagerError",
    "OtherBatch",
    "OutputUnwritable",
    "RecordUnreadable",
    "RedirectRefused",
    "RequestRefused",
    "ResourcesExhausted",
    "ResumeRefused",
    "SnapshotNotRestorable",
    "Stopped",
    "TlsError",
    "TransferCut",
    "TransientApiError",
    "UnpackCancelled",
    "Unreachable",
    "UnsafeArchive",
    "Unwritable",
    "UsageError",
]
