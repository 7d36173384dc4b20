"""Errors of crypt32.dll, ncrypt.dll, advapi32.dll and kernel32.dll.

Source: winerror.h. Alone, since the seams must load where cryptography is not installed.
"""

CODES = {
    "ERROR_FILE_NOT_FOUND": 2, "ERROR_PATH_NOT_FOUND": 3, "ERROR_INVALID_PARAMETER": 87,
    "ERROR_ALREADY_EXISTS": 183, "ERROR_MORE_DATA": 234, "ERROR_UNKNOWN_REVISION": 1305,
    "ERROR_INVALID_OWNER": 1307, "ERROR_INVALID_ACL": 1336, "E_INVALIDARG": 0x80070057,
    "E_ACCESSDENIED": 0x80070005, "CRYPT_E_NOT_FOUND": 0x80092004,
    "CRYPT_E_NO_KEY_PROPERTY": 0x8009200B, "NTE_BAD_FLAGS": 0x80090009,
    "NTE_BAD_KEYSET": 0x80090016, "NTE_NOT_SUPPORTED": 0x80090029}


class CryptoError(Exception):
    """A call fails.

    :param code: what GetLastError tells then, or the function returns
    """

    def __init__(self, code):
        super().__init__(code)
        self.code = code
