// Graphs: what a capturing stream was given, in its order.
#include "driver.h"

std::shared_ptr<Recording> recording;
CUstream recorded = nullptr;

Recording::~Recording() {
  for (void* start : registered) simt::remove_global(reinterpret_cast<uintptr_t>(start));
}

struct CUgraph_st {
  std::shared_ptr<Recording> recording;
};

extern "C" {

CUresult cuStreamBeginCapture_v2(CUstream stream, int) {
  LOCKED;
  if (!stream) return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
  if (recording) return refuse(CUDA_ERROR_ILLEGAL_STATE, "the emulator captures one stream at a time");
  recording = std::make_shared<Recording>();
  recorded = stream;
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph_st** graph) {
  LOCKED;
  if (!recording || stream != recorded) return refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is not capturing");
  *graph = new CUgraph_st{std::move(recording)};
  recording.reset();
  return ++live_objects, CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph_st* graph) {
  LOCKED;
  return delete graph, --live_objects, CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraph_st** executable, CUgraph_st* graph, unsigned long long) {
  LOCKED;
  return *executable = new CUgraph_st(*graph), ++live_objects, CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraph_st* executable) { return cuGraphDestroy(executable); }
CUresult cuGraphLaunch(CUgraph_st* executable, CUstream) {
  LOCKED;
  for (auto& step : executable->recording->steps)
    if (CUresult bad = step()) return bad;
  return sticky;
}

}  // extern "C"
