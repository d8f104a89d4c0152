"""Rows of cryptography."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
CR-00 | the keys that the suite needs are configured
CR-01 | the component opens with the settings of its file
CR-02 | every configured algorithm is in the catalogue
CR-03 | public keys are read
CR-04 | of a private key only the public part is read
CR-05 | a symmetric key is not handed out
CR-06 | symmetric encryption works both ways; a wrong key or tag is refused
CR-07 | encryption with a private key at hand works both ways
CR-08 | encryption with a public key
CR-09 | symmetric wrapping works both ways; a wrong key or tag is refused
CR-10 | wrapping with a private key at hand works both ways
CR-11 | wrapping with a public key
CR-12 | sign and verify; a changed digest is false and no error
CR-13 | sign and verify with a symmetric key
stricter-105 | known answers of the standards
stricter-106 | interoperates with an independent library both ways
stricter-107 | only the exact ciphertext, tag, nonce and associated data decrypt
stricter-108 | nonces and tags of wrong length are typed errors before the key is used
stricter-109 | empty and oversized inputs
stricter-110 | private operations with a public key are key type errors
stricter-111 | what a key may be used for is checked before any work
stricter-112 | every algorithm of the catalogue works, every other is unsupported
stricter-113 | no private part or plaintext in outputs, repr, logs or errors
stricter-114 | verify with anything wrong is false or a typed error
stricter-115 | the encoding of ECDSA signatures is documented
stricter-116 | asymmetric keys are wrapped and unwrapped
stricter-117 | every key format is parsed or refused with a typed error
stricter-118 | names that leave the key folder are refused
stricter-119 | key sets rotate, survive an outage, and respect validity
stricter-120 | a hundred first uses of one key fetch it once, one cancelled caller harms nobody
stricter-121 | heavy work does not hold up the event loop
stricter-122 | ciphertexts of an earlier release decrypt
"""

WAIVED: dict[str, str] = {
    "CR-13": "no driver offers HMAC signatures; the algorithms HS256 to HS512 are refused (stricter-112)",
    "stricter-122": "there is no earlier release",
}
