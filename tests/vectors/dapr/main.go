// Command dapr works with Dapr's own implementation: one request in JSON per line of standard input, one answer per line.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"

	"github.com/dapr/kit/crypto"
	"github.com/dapr/kit/schemes/enc/v1"
)

type request struct {
	Do, Algorithm, Cipher, KeyName        string
	Key, Data, Nonce, Tag, AAD, Signature []byte
}

type answer struct {
	Data, Tag []byte
	Valid     bool
	Error     string
}

func do(r request) (a answer, err error) {
	key, err := crypto.ParseKey(r.Key, "")
	if err != nil {
		return a, err
	}
	switch r.Do {
	case "encrypt":
		a.Data, a.Tag, err = crypto.Encrypt(r.Data, r.Algorithm, key, r.Nonce, r.AAD)
	case "decrypt":
		a.Data, err = crypto.Decrypt(r.Data, r.Algorithm, key, r.Nonce, r.Tag, r.AAD)
	case "sign":
		a.Data, err = crypto.SignPrivateKey(r.Data, r.Algorithm, key)
	case "verify":
		a.Valid, err = crypto.VerifyPublicKey(r.Data, r.Signature, r.Algorithm, key)
	case "encryptDocument":
		cipher := v1.Cipher(r.Cipher)
		a.Data, err = all(v1.Encrypt(bytes.NewReader(r.Data), v1.EncryptOptions{
			Algorithm: v1.KeyAlgorithm(r.Algorithm), KeyName: r.KeyName, Cipher: &cipher,
			WrapKeyFn: func(plain []byte, algorithm, _ string, nonce []byte) ([]byte, []byte, error) {
				return crypto.Encrypt(plain, algorithm, key, nonce, nil)
			},
		}))
	case "decryptDocument":
		a.Data, err = all(v1.Decrypt(bytes.NewReader(r.Data), v1.DecryptOptions{
			UnwrapKeyFn: func(wrapped []byte, algorithm, _ string, nonce, tag []byte) ([]byte, error) {
				return crypto.Decrypt(wrapped, algorithm, key, nonce, tag, nil)
			},
		}))
	}
	return a, err
}

func all(r io.Reader, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var r request
		if err = json.Unmarshal(line, &r); err != nil {
			panic(err)
		}
		a, err := do(r)
		if err != nil {
			a.Error = err.Error()
		}
		_ = out.Encode(a)
	}
}
