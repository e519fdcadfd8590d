// Debian's libgloo-dev lacks this header, which its gloo/transport/tcp headers include. These are pointers to an object whose destructor waits for
// those who are using it: a shared pointer that owns nothing (Shareable), weak ones given out by it, and locked ones. The types must have the
// layout that the library was compiled with, one standard pointer each; transport.cpp asserts the sizes.
#pragma once
#include <memory>
#include <thread>

namespace gloo {

template <class T> class WeakNonOwningPtr;

template <class T>
class ShareableNonOwningPtr final {
 public:
  explicit ShareableNonOwningPtr(T* object) : pointer_(object, [](T*) {}) {}
  ShareableNonOwningPtr(const ShareableNonOwningPtr&) = delete;
  ShareableNonOwningPtr& operator=(const ShareableNonOwningPtr&) = delete;
  ~ShareableNonOwningPtr() {
    const std::weak_ptr<T> users = pointer_;
    for (pointer_.reset(); !users.expired();) std::this_thread::yield();
  }

 private:
  std::shared_ptr<T> pointer_;
  friend class WeakNonOwningPtr<T>;
};

template <class T>
class NonOwningPtr final {
 public:
  NonOwningPtr() = default;
  explicit NonOwningPtr(const WeakNonOwningPtr<T>& weak) : pointer_(weak.pointer_.lock()) {}
  T* operator->() const noexcept { return pointer_.get(); }
  explicit operator bool() const noexcept { return pointer_ != nullptr; }

 private:
  std::shared_ptr<T> pointer_;
};

template <class T>
class WeakNonOwningPtr final {
 public:
  WeakNonOwningPtr() = default;
  explicit WeakNonOwningPtr(const ShareableNonOwningPtr<T>& owner) : pointer_(owner.pointer_) {}

 private:
  std::weak_ptr<T> pointer_;
  friend class NonOwningPtr<T>;
};

}  // namespace gloo
