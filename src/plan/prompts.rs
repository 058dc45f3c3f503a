//! What users say where nothing else is given: short questions in English and Korean.

/// The built-in prompts.
pub(super) const ALL: [&str; 16] = [
    "How do I reverse a linked list in Rust without unsafe code?",
    "Summarise the difference between a process and a thread for a new colleague.",
    "Write a polite reply that moves our meeting to Thursday afternoon.",
    "What are three good questions to ask in a code review?",
    "Explain how a database index speeds up a query, with a small example.",
    "Draft release notes for a version that fixes two bugs and adds dark mode.",
    "My build fails only in CI. Which five things should I check first?",
    "Turn these notes into a short agenda: budget, hiring, roadmap, questions.",
    "What does the status 429 mean, and how should a client behave when it gets one?",
    "Give me a recipe for a quick dinner with rice, eggs and spinach.",
    "주간 보고서 초안을 세 문단으로 작성해 주세요.",
    "이 함수가 왜 느린지 설명하고 더 빠른 방법을 알려 주세요.",
    "다음 주 제주도 여행 일정을 이틀로 짜 주세요.",
    "고객에게 보낼 정중한 사과 메일을 써 주세요.",
    "쿠버네티스에서 파드가 계속 재시작될 때 무엇을 확인해야 하나요?",
    "회의록을 읽고 결정된 사항만 정리하는 방법을 알려 주세요.",
];
