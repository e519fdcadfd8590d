// Errors: of the CUDA run time, and those that only a device can see.
#include "../common/library.h"

#include <bit>
#include <cstring>
#include <map>
#include <vector>

#include "device.h"

namespace dg {
namespace {

struct Message {
  dg_status status;
  std::string name, format;
};
std::mutex mutex;
std::vector<Message> messages;
std::map<std::pair<std::string, std::string>, unsigned> message_numbers;  // by name and format
thread_local std::string running;                                         // the call that works on the current device

}  // namespace

void call_runs(const char* op) { running = op; }

std::string failed_call(const char* what) {
  return (running.empty() || running == what ? "" : running + ": ") + what + " on cuda:" + std::to_string(current_device());
}

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const std::string text = cudaGetErrorString(status);
  cudaGetLastError();
  fail(status == cudaErrorMemoryAllocation ? DG_OUT_OF_MEMORY : DG_DEVICE, "%s: %s", failed_call(what).c_str(), text.c_str());
}

void launched(const char* kernel) {
  device_state().launches++;
  check_cuda(cudaGetLastError(), kernel);
}

void library_called(const char*) { device_state().library_calls++; }

Report report(dg_status status, const std::string& format) {
  ReportSlot* const slot = device_state().slot;
  std::lock_guard<std::mutex> lock(mutex);
  const auto [it, added] = message_numbers.try_emplace({call_name(), format}, unsigned(messages.size()));
  if (added) messages.push_back({status, call_name(), format});
  return {slot, it->second};
}

void raise_report(const ReportSlot& found) {
  Message message;
  {
    std::lock_guard<std::mutex> lock(mutex);
    message = messages[found.message];
  }
  char text[512];
  const char* const format = message.format.c_str();
  if (std::strstr(format, "%g")) std::snprintf(text, sizeof text, format, std::bit_cast<double>(found.values[0]));
  else std::snprintf(text, sizeof text, format, found.values[0], found.values[1], found.values[2]);
  fail(message.status, "%s%s%s", message.name.c_str(), message.name.empty() ? "" : ": ", text);
}

void set_thread_count(int32_t) { fail(DG_DEVICE, "setThreads: threads are the cpu library's"); }
int thread_count() { return 0; }

}  // namespace dg
