"""Drivers for services of AWS: SQS, SNS, S3, Secrets Manager and the Parameter Store."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind, Limits

__all__ = ["PARAMETERS", "PUBSUB", "S3_BINDING", "SECRETS", "SQS_BINDING"]

SQS_BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="aws.sqs",
    driver="lapel_contrib.aws.sqs_binding:SqsBinding",
    settings="lapel_contrib.aws.component_settings:SqsBindingSettings",
    summary="Messages to and from a queue of Amazon SQS.",
    capabilities=Capability.INPUT | Capability.OUTPUT | Capability.REDELIVERY | Capability.PAUSE,
    operations=("create",),
    limits=Limits(value_bytes=1024 * 1024),
    extra="aws",
)

S3_BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="aws.s3",
    driver="lapel_contrib.aws.s3_binding:S3Binding",
    settings="lapel_contrib.aws.component_settings:S3BindingSettings",
    summary="Objects in a bucket of Amazon S3, or of what speaks its protocol.",
    capabilities=Capability.OUTPUT,
    operations=("create", "get", "delete", "list", "presign", "bulkGet", "bulkCreate", "bulkDelete"),
    limits=Limits(key_bytes=1024),
    extra="aws",
)

PUBSUB = Descriptor(
    kind=Kind.PUBSUB,
    name="aws.snssqs",
    aliases=("snssqs",),
    driver="lapel_contrib.aws.pubsub:SnsSqsPubSub",
    settings="lapel_contrib.aws.pubsub_settings:SnsSqsSettings",
    summary="Topics of Amazon SNS with a queue of Amazon SQS for each consumer group, in Dapr's layout.",
    capabilities=Capability.CONSUMER_GROUPS
    | Capability.DURABLE
    | Capability.BULK_PUBSUB
    | Capability.ORDER_BY_KEY
    | Capability.ORDER_ALL
    | Capability.DEAD_LETTER
    | Capability.DELIVERY_COUNT
    | Capability.ATTRIBUTES
    | Capability.PAUSE,
    # SNS takes 256 KiB, attributes and the Base64 of data that is no text included.
    limits=Limits(value_bytes=180 * 1024, bulk_items=100),
    extra="aws",
)

SECRETS = Descriptor(
    kind=Kind.SECRETSTORES,
    name="aws.secretmanager",
    aliases=("aws.secretsmanager",),
    driver="lapel_contrib.aws.secretmanager:SecretManager",
    settings="lapel_contrib.aws.component_settings:SecretManagerSettings",
    summary="Secrets from AWS Secrets Manager.",
    capabilities=Capability.BULK_SECRETS | Capability.SECRET_VERSIONS | Capability.MULTIPLE_KEY_VALUES_PER_SECRET,
    extra="aws",
)

PARAMETERS = Descriptor(
    kind=Kind.SECRETSTORES,
    name="aws.parameterstore",
    driver="lapel_contrib.aws.parameterstore:ParameterStore",
    settings="lapel_contrib.aws.component_settings:ParameterStoreSettings",
    summary="Secrets from the Parameter Store of AWS Systems Manager.",
    capabilities=Capability.BULK_SECRETS | Capability.SECRET_VERSIONS,
    extra="aws",
)
