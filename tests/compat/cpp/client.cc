// A client as people write them with stubs generated from the .proto files: it knows nothing of
// our server but these. Run with the server's address; it writes a line for each thing that it has
// seen go well, and ends with 1 at the first that does not.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "grpc_service.grpc.pb.h"

using inference::GRPCInferenceService;

namespace {

constexpr int kFloats = 4;

void Expect(bool is_so, const std::string& what) {
  if (!is_so) {
    std::cerr << "not so: " << what << std::endl;
    std::exit(1);
  }
  std::cout << what << std::endl;
}

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

inference::ModelInferRequest Request(const std::string& model) {
  inference::ModelInferRequest request;
  request.set_model_name(model);
  request.set_id("cpp");
  return request;
}

inference::ModelInferRequest::InferInputTensor* AddInput(
    inference::ModelInferRequest* request, const std::string& name, const std::string& datatype,
    int size) {
  auto* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  input->add_shape(size);
  return input;
}

std::vector<float> Floats(const std::string& raw) {
  std::vector<float> values(raw.size() / sizeof(float));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

inference::ModelInferResponse Infer(
    GRPCInferenceService::Stub* stub, const inference::ModelInferRequest& request) {
  grpc::ClientContext context;
  SetDeadline(&context);
  inference::ModelInferResponse response;
  const grpc::Status status = stub->ModelInfer(&context, request, &response);
  Expect(status.ok(), "infer is OK " + status.error_message());
  Expect(response.id() == "cpp", "the id comes back");
  return response;
}

void InferTyped(GRPCInferenceService::Stub* stub) {
  auto request = Request("add_sub");
  for (const char* name : {"INPUT0", "INPUT1"}) {
    auto* contents = AddInput(&request, name, "FP32", kFloats)->mutable_contents();
    for (int i = 0; i < kFloats; ++i) contents->add_fp32_contents(i + 0.5f);
  }
  const auto response = Infer(stub, request);
  Expect(response.raw_output_contents_size() == 2, "typed: the answer is raw");
  Expect(
      Floats(response.raw_output_contents(0)) == std::vector<float>({1, 3, 5, 7}),
      "typed: the sums are right");
}

void InferRaw(GRPCInferenceService::Stub* stub) {
  auto request = Request("identity");
  AddInput(&request, "INPUT0", "FP32", kFloats);
  const float values[kFloats] = {1.5f, -2.0f, 0.0f, 1e30f};
  request.add_raw_input_contents(values, sizeof(values));
  request.add_outputs()->set_name("OUTPUT0");
  const auto response = Infer(stub, request);
  Expect(response.outputs(0).shape(0) == kFloats, "raw: the shape is right");
  Expect(
      response.raw_output_contents(0) == std::string(reinterpret_cast<const char*>(values),
                                                     sizeof(values)),
      "raw: the bytes are the same");
}

void InferText(GRPCInferenceService::Stub* stub) {
  auto request = Request("same_bytes");
  auto* contents = AddInput(&request, "values", "BYTES", 2)->mutable_contents();
  contents->add_bytes_contents(std::string("a\0b", 3));
  contents->add_bytes_contents("");
  const std::string raw = Infer(stub, request).raw_output_contents(0);
  Expect(raw == std::string("\3\0\0\0a\0b\0\0\0\0", 11), "text: each has its length before it");
}

void Refuse(GRPCInferenceService::Stub* stub) {
  grpc::ClientContext context;
  SetDeadline(&context);
  inference::ModelInferResponse response;
  const grpc::Status status = stub->ModelInfer(&context, Request("nobody"), &response);
  Expect(status.error_code() == grpc::StatusCode::NOT_FOUND, "an unknown model is NOT_FOUND");
  Expect(
      status.error_message() == "Request for unknown model: 'nobody' is not found",
      "and its text is Triton's");
}

void Stream(GRPCInferenceService::Stub* stub) {
  grpc::ClientContext context;
  SetDeadline(&context);
  auto stream = stub->ModelStreamInfer(&context);
  auto request = Request("repeat");
  AddInput(&request, "text_input", "BYTES", 1)->mutable_contents()->add_bytes_contents("one two");
  (*request.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(true);
  Expect(stream->Write(request), "stream: the request is sent");
  stream->WritesDone();
  std::vector<std::string> got;
  inference::ModelStreamInferResponse response;
  bool is_final = false;
  while (stream->Read(&response)) {
    const auto& inferred = response.infer_response();
    is_final = inferred.parameters().at("triton_final_response").bool_param();
    if (inferred.outputs_size() > 0) got.push_back(inferred.raw_output_contents(0).substr(4));
  }
  Expect(got == std::vector<std::string>({"one", "two"}), "stream: the words come one by one");
  Expect(is_final, "stream: the last response says that it is");
  Expect(stream->Finish().ok(), "stream: it ends OK");
}

void Describe(GRPCInferenceService::Stub* stub) {
  grpc::ClientContext context;
  SetDeadline(&context);
  inference::ModelConfigRequest request;
  request.set_name("digits");
  inference::ModelConfigResponse response;
  Expect(stub->ModelConfig(&context, request, &response).ok(), "the configuration comes");
  Expect(response.config().input(0).dims(0) == 64, "and says what goes in");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: client HOST:PORT" << std::endl;
    return 2;
  }
  auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  auto stub = GRPCInferenceService::NewStub(channel);
  InferTyped(stub.get());
  InferRaw(stub.get());
  InferText(stub.get());
  Refuse(stub.get());
  Stream(stub.get());
  Describe(stub.get());
  std::cout << "all is well" << std::endl;
  return 0;
}
