// A stand-in for what client.cc uses of TensorFlow Lite's C++ interface, answered by LiteRT's own library.
//
// No package that can be installed here has TensorFlow Lite's headers or its C++ library. The wheel of LiteRT has
// libLiteRt.so, whose C functions are declared below as in LiteRT 2.3. So this shows that client.cc compiles, reads
// golden.json right and gets LiteRT's answers; that TensorFlow Lite spells the same calls so is taken from its manual.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace litert {
using Handle = void*;
struct TensorType {
  int32_t element;  // 1: float32, 3: uint8
  struct {
    unsigned int rank : 7, has_strides : 1;
    int32_t dimensions[8];
    uint32_t strides[8];
  } layout;
};
constexpr int kCpu = 1, kRead = 0, kWrite = 1;
}  // namespace litert

extern "C" {
int LiteRtCreateEnvironment(int, const void*, litert::Handle*);
int LiteRtCreateModelFromFile(litert::Handle environment, const char*, litert::Handle*);
int LiteRtCreateOptions(litert::Handle*);
int LiteRtSetOptionsHardwareAccelerators(litert::Handle, int);
int LiteRtCreateCompiledModel(litert::Handle environment, litert::Handle model, litert::Handle options, litert::Handle*);
int LiteRtGetModelSignature(litert::Handle, size_t, litert::Handle*);
int LiteRtGetSignatureInputTensorByIndex(litert::Handle, size_t, litert::Handle*);
int LiteRtGetSignatureOutputTensorByIndex(litert::Handle, size_t, litert::Handle*);
int LiteRtGetRankedTensorType(litert::Handle, litert::TensorType*);
int LiteRtGetCompiledModelInputBufferRequirements(litert::Handle, size_t signature, size_t, litert::Handle*);
int LiteRtGetCompiledModelOutputBufferRequirements(litert::Handle, size_t signature, size_t, litert::Handle*);
int LiteRtCreateManagedTensorBufferFromRequirements(litert::Handle environment, const litert::TensorType*,
                                                    litert::Handle requirements, litert::Handle*);
int LiteRtGetTensorBufferPackedSize(litert::Handle, size_t*);
int LiteRtLockTensorBuffer(litert::Handle, void**, int mode);
int LiteRtUnlockTensorBuffer(litert::Handle);
int LiteRtRunCompiledModel(litert::Handle, size_t signature, size_t, litert::Handle*, size_t, litert::Handle*);
}

enum TfLiteStatus { kTfLiteOk, kTfLiteError };

namespace tflite {
namespace ops::builtin {
class BuiltinOpResolver {};
}  // namespace ops::builtin

inline void Demand(int status) {
  if (status != 0) throw std::runtime_error("LiteRT refuses: status " + std::to_string(status));
}

class FlatBufferModel {
 public:
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    auto made = std::make_unique<FlatBufferModel>();
    Demand(LiteRtCreateEnvironment(0, nullptr, &made->environment));
    return LiteRtCreateModelFromFile(made->environment, path, &made->model) == 0 ? std::move(made) : nullptr;
  }
  litert::Handle environment = nullptr, model = nullptr;
};

class Interpreter {
 public:
  explicit Interpreter(const FlatBufferModel& model) : model_(model) {}

  TfLiteStatus AllocateTensors() {
    litert::Handle options, signature, tensor, needs;
    Demand(LiteRtCreateOptions(&options));
    Demand(LiteRtSetOptionsHardwareAccelerators(options, litert::kCpu));
    Demand(LiteRtCreateCompiledModel(model_.environment, model_.model, options, &compiled_));
    Demand(LiteRtGetModelSignature(model_.model, 0, &signature));
    Demand(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor));
    Demand(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, 0, &needs));
    input_.Allocate(model_.environment, tensor, needs);
    Demand(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor));
    Demand(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, 0, &needs));
    output_.Allocate(model_.environment, tensor, needs);
    return kTfLiteOk;
  }

  TfLiteStatus Invoke() {
    void* memory;
    Demand(LiteRtLockTensorBuffer(input_.buffer, &memory, litert::kWrite));
    std::memcpy(memory, input_.bytes.data(), input_.bytes.size());
    Demand(LiteRtUnlockTensorBuffer(input_.buffer));
    Demand(LiteRtRunCompiledModel(compiled_, 0, 1, &input_.buffer, 1, &output_.buffer));
    Demand(LiteRtLockTensorBuffer(output_.buffer, &memory, litert::kRead));
    std::memcpy(output_.bytes.data(), memory, output_.bytes.size());
    Demand(LiteRtUnlockTensorBuffer(output_.buffer));
    return kTfLiteOk;
  }

  template <class T>
  T* typed_input_tensor(int) {
    return input_.As<T>();
  }
  template <class T>
  T* typed_output_tensor(int) {
    return output_.As<T>();
  }

 private:
  struct Port {
    void Allocate(litert::Handle environment, litert::Handle tensor, litert::Handle needs) {
      Demand(LiteRtGetRankedTensorType(tensor, &type));
      Demand(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &buffer));
      size_t size;
      Demand(LiteRtGetTensorBufferPackedSize(buffer, &size));
      bytes.resize(size);
    }
    template <class T>  // nullptr for another type, as TensorFlow Lite answers
    T* As() {
      return type.element == (std::is_same_v<T, float> ? 1 : 3) ? reinterpret_cast<T*>(bytes.data()) : nullptr;
    }
    litert::TensorType type;
    litert::Handle buffer;
    std::vector<char> bytes;
  };

  const FlatBufferModel& model_;
  litert::Handle compiled_ = nullptr;
  Port input_, output_;
};

class InterpreterBuilder {
 public:
  InterpreterBuilder(const FlatBufferModel& model, const ops::builtin::BuiltinOpResolver&) : model_(model) {}
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* made) {
    *made = std::make_unique<Interpreter>(model_);
    return kTfLiteOk;
  }

 private:
  const FlatBufferModel& model_;
};
}  // namespace tflite
